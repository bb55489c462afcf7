"""What stands in for a model and for data that are not at hand where a program is only compiled.

A program's shapes follow from few facts: the model's, the length of a row, how many there are. Everything else comes
from the code that a training runs, which reads the made-up files as it reads any.
"""

import dataclasses
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.config import Config, TrainSettings
from jaxlm.console import Console
from jaxlm.data.prepare import prepare, row_lengths
from jaxlm.data.prepared import is_prepared
from jaxlm.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, CheckpointError, hub
from jaxlm.models.well_known import well_known_shape

MOST_EXAMPLES = 4096  # of a batch that is made up; the shapes of a larger one are this one's, scaled
_LETTERS = "abcdefghijklmnopqrstuvwxyz"  # each is a word and a token of its own in any BERT's vocabulary


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A config of the same program, and what was assumed for it."""

    config: Config
    assumed: list[str]
    scale: float = 1.0  # so many times more rows has the program that was asked for


def stand_in(config: Config, folder: Path, *, data_is_given: bool, tokens: int | None = None) -> StandIn:
    """Puts files in the place of what is not on this machine: of weights always, of data unless it `is_given`.

    Args:
      config: of one run, without a `pretrain` stage.
      folder: where the files go.
      tokens: mean length of the examples; None: all are as long as `data.max_length` lets them be.

    Raises:
      UserError, CheckpointError: the model's shape is not known, or the task has no stand-in for its data.
    """
    assumed: list[str] = []
    data = dataclasses.replace(config.data, dev=None, test=None)
    model, train = config.model, config.train
    if model.init is not None:
        model = dataclasses.replace(model, init=str(_model(model.init, folder / "init", assumed)), random_init=True)
    real = data_is_given or bool(data.mixture) or _is_here(data.train)
    if real and (data.mixture or is_prepared(data.train)):
        data = dataclasses.replace(data, tokenizer=None)  # prepared rows carry their own
    elif model.init is None:
        directory = _tokenizer(data.tokenizer, data.vocab_size, folder / "tokenizer", assumed)
        data = dataclasses.replace(data, tokenizer=str(directory))
    if real:
        return StandIn(dataclasses.replace(config, model=model, data=data), assumed)
    scale = max(max([train.batch_size, *(phase.batch_size or 0 for phase in train.phases)]) / MOST_EXAMPLES, 1.0)
    columns: dict[str, Any] = dict.fromkeys(("text", "text_pair", "negative", "label", "words", "tags"))
    data = dataclasses.replace(data, **columns, pairs=False, header="auto", validation=0.0, documents="blank_lines")
    train = _scaled_down(train, scale)
    tokenizer = TextTokenizer.load(Path(model.init or str(data.tokenizer)))
    length = data.max_length if tokens is None else min(tokens, data.max_length)
    how_long = f"{length} tokens an example" if tokens else f"examples that all fill data.max_length ({length} tokens)"
    if config.task == "masked_lm" and (train.phases or config.objective.next_sentence or data.train is None):
        data = dataclasses.replace(data, train=str(_documents(config, data, tokenizer, folder)))
        assumed.append("no data given: rows full of text are assumed")
    else:
        if config.task not in _ROWS:
            raise UserError(f"there is no stand-in for data of task {config.task}: name some with --data.train FILE")
        train = dataclasses.replace(train, steps=min(train.steps or 3, 3))
        rows = _ROWS[config.task](config, data.max_length, length)
        path = folder / "train.jsonl"
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in itertools.islice(rows, max(train.batch_size, 2)))
        data = dataclasses.replace(data, train=str(path), bad_rows="error")
        assumed.append(f"no data given: {how_long} are assumed; --tokens_per_example or --data.train says more")
    return StandIn(dataclasses.replace(config, model=model, data=data, train=train), assumed, scale)


def _scaled_down(train: TrainSettings, scale: float) -> TrainSettings:
    phases = tuple(
        dataclasses.replace(phase, batch_size=phase.batch_size and math.ceil(phase.batch_size / scale))
        for phase in train.phases
    )
    return dataclasses.replace(train, batch_size=math.ceil(train.batch_size / scale), phases=phases)


def _is_here(spec: str | None) -> bool:
    """Whether a preset's own data needs no network."""
    return spec is not None and (spec.startswith("docs:") or Path(spec).exists())


def _model(init: str, folder: Path, assumed: list[str]) -> Path:
    """The directory of a model, or one with its shape alone."""
    try:
        return hub.resolve(init, weights=False)
    except CheckpointError as error:
        shape = well_known_shape(init)
        if shape is None:
            raise CheckpointError(
                f"{error}; or give its shape: --model.init None --model.hidden_size N --model.num_hidden_layers N ..."
            ) from None
    folder.mkdir()
    (folder / "config.json").write_text(shape.to_json("BertModel"))
    _write_vocabulary(folder, shape.vocab_size)
    assumed.append(f"the hub gives no {init} here: its well-known shape is taken")
    return folder


def _tokenizer(asked: str | None, size: int, folder: Path, assumed: list[str]) -> Path:
    """The directory of a tokenizer, or one with a vocabulary of the same size."""
    if asked is not None:
        try:
            return hub.resolve(asked, weights=False)
        except CheckpointError:
            shape: BertConfig | None = well_known_shape(asked)
            if shape is None:
                raise
            size = shape.vocab_size
            assumed.append(f"the hub gives no {asked} here: a vocabulary of its size ({size}) is taken")
    folder.mkdir()
    _write_vocabulary(folder, size)
    return folder


def _write_vocabulary(folder: Path, size: int) -> None:
    tokens = [*SPECIAL_TOKENS, ".", *_LETTERS]
    tokens += [f"##{number}" for number in range(size - len(tokens))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))


def _text(count: int, first: int = 0) -> str:
    """A text of `count` tokens."""
    return " ".join(_LETTERS[(first + place) % len(_LETTERS)] for place in range(count))


def _lengths(longest: int, usual: int) -> Iterator[int]:
    """One example is as long as it may be: rows have to hold it."""
    yield longest
    while True:
        yield usual


Rows = Callable[[Config, int, int], Iterator[dict[str, Any]]]


def _labelled(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for number, length in enumerate(_lengths(longest, usual)):
        yield {"text": _text(max(length - 2, 1), number), "label": ["0", "1"][number % 2]}


def _sets(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for row in _labelled(config, longest, usual):
        yield row | {"label": [row["label"]]}


def _tagged(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for number, length in enumerate(_lengths(longest, usual)):
        words = _text(max(length - 2, 1), number).split()
        tags = ["B-a" if place % 2 else "O" for place in range(len(words))]
        yield {"tokens": words, "tags": tags, "intent": ["0", "1"][number % 2]}


def _questions(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for number, length in enumerate(_lengths(longest, usual)):
        question = min(16, config.qa.max_question_length, max(length // 4, 1))
        context = _text(max(length - question - 3, 1))
        answers = {"text": [context[0]], "answer_start": [0]}
        yield {"id": str(number), "question": _text(question), "context": context, "answers": answers}


def _pairs(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for number, length in enumerate(_lengths(longest, usual)):
        texts = [_text(max(length - 2, 1), number + part) for part in range(3)]
        row: dict[str, Any] = dict(zip(("text", "text_pair", "negative"), texts, strict=True))
        scored, positive = config.embedding.loss != "contrastive", config.embedding.positive
        if config.data.negative is None or scored:
            del row["negative"]
        if scored or positive is not None:
            row["label"] = positive or number % 2
        yield row


def _ranked(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for number, length in enumerate(_lengths(longest, usual)):
        query = max(length // 8, 1)
        yield {"query": _text(query, number), "passage": _text(max(length - query - 3, 1)), "label": number % 2}


def _plain(config: Config, longest: int, usual: int) -> Iterator[dict[str, Any]]:
    for length in _lengths(longest, usual):
        yield {"text": _text(max(length - 2, 1))}


_ROWS: dict[str, Rows] = {
    "classification": _labelled,
    "regression": _labelled,
    "multi_label": _sets,
    "token_classification": _tagged,
    "intent_slots": _tagged,
    "question_answering": _questions,
    "embedding": _pairs,
    "ranking": _ranked,
    "masked_lm": _plain,
}


def _documents(config: Config, data: Any, tokenizer: TextTokenizer, folder: Path) -> Path:
    """Prepared rows of documents that are longer than any row."""
    sentences = 4 * max(row_lengths(config)) // 16
    documents = ["\n".join(f"{_text(15, first)}." for _ in range(sentences)) for first in range(8)]
    source = folder / "documents.txt"
    source.write_text("\n\n".join(documents) + "\n")
    output = folder / "prepared"
    asked = dataclasses.replace(config, data=dataclasses.replace(data, train=str(source)))
    prepare(asked, tokenizer, output, Console(io.StringIO()), workers=1)
    return output
