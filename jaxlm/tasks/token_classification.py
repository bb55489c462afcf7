"""Token classification: every word of a sentence has a tag, and tags mark entities (names, slots)."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config import DataSettings, Stage
from jaxlm.data.columns import NOTHING, Known, with_columns
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.tags import OUTSIDE, as_said_by, entities, guesses_as_iob2, in_usual_form, is_tag
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.data.windows import windows_of_words
from jaxlm.data.word_files import read_words
from jaxlm.data.words import WordTable, raw_texts, word_table
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForTokenClassification
from jaxlm.models.hub import PretrainedModel
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, Task, model_inputs
from jaxlm.tasks.classification import listing
from jaxlm.tasks.entity_scores import accuracy, entity_scores, tag_scores
from jaxlm.training.flops import train_flops

UNLABELLED = 0  # in a batch, tag n is n + 1: tokens that speak for no word, and words whose tag no one knows


@dataclasses.dataclass(frozen=True)
class TaggedWords:
    """What predictions and metrics are made of."""

    table: WordTable
    first_token: np.ndarray  # [words of all sentences]: where the token is that speaks for a word; -1: there is none


class TokenClassification(Task):
    """`BertForTokenClassification`, softmax cross-entropy over the first token of each word.

    A tag of dev or test that never occurs in train is one that the model cannot give: it takes no part in the loss, and
    counts as missed in the other metrics. Sentences longer than `data.max_length` are read in overlapping windows.

    Tags without prefixes, such as parts of speech, mark no entities (`WordTable.flat`): words are judged one by one.
    """

    name = "token_classification"
    model_class: type[PretrainedModel] = BertForTokenClassification
    label_kind = None
    metrics_to_judge_by: ClassVar[tuple[str, ...]] = ("f1", "accuracy", "loss", "precision", "recall", "macro_f1")
    intents: ClassVar[bool] = False  # whether sentences have labels of their own, too
    foreign = False  # whether another program trained the model, on tags of any scheme

    def __init__(
        self, stage: Stage, tokenizer: TextTokenizer, tags: list[str], overlap: float | None = None, flat: bool = False
    ):
        super().__init__(stage, tokenizer)
        if flat and stage.train.metric is None:
            self.metric = "accuracy"
        if self.metric in (("f1", "precision", "recall") if flat else ("macro_f1",)):
            kind = (
                "tags without B- and I- are judged by accuracy, macro_f1 or" if flat else "entities, by f1, accuracy or"
            )
            raise UserError(f"--train.metric is {self.metric}; {kind} loss")
        self.flat = flat
        self.tags = tags
        self.overlap = stage.tags.overlap if overlap is None else overlap

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        tags = tags_of(train, shape, new_head=stage.model.new_head)
        return cls(stage, tokenizer, tags, flat=_with_words(train).flat)

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        tags = in_usual_form(config.id2label.values())
        flat = config.facts.get("flat", not any(map(is_tag, tags)))
        task = cls(stage, tokenizer, tags, config.facts.get("overlap"), flat=flat)
        task.foreign = "task" not in config.facts
        return task

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known: Known = NOTHING
    ) -> WordTable:
        intents = labelled and cls.intents

        def read(settings: DataSettings) -> WordTable:
            return read_words(spec, split, settings, tags=labelled, intents=intents, known_tags=known.labels)

        return with_columns(known.columns, settings, read)

    @classmethod
    def from_texts(
        cls, source: str, texts: Sequence[str | bytes], pairs: Sequence[str] | None, settings: DataSettings
    ) -> WordTable:
        if pairs is not None:
            raise UserError(f"--text_pair: {cls.name} reads single sentences")
        return word_table(source, raw_texts(texts), settings.bad_rows, tags=False, intents=False)

    def facts(self) -> dict[str, Any]:
        told = {"flat": True} if self.flat and OUTSIDE in self.tags else {}  # else the tags say so themselves
        return {"overlap": self.overlap} | told

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(config, id2label=dict(enumerate(self.tags)), problem_type=None)

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        table = self._flat_where_the_model_is(_with_words(table))
        max_length = self.stage.data.max_length
        windows = windows_of_words(self.tokenizer, table.words, max_length, self.overlap)
        tags = np.full(len(windows.input_ids), UNLABELLED, np.int32)
        remarks = list(table.remarks)
        if table.tags is not None:
            numbers = {tag: number + 1 for number, tag in enumerate(self.tags)}
            said = table.tags if self.flat else as_said_by(self.tags, table.tags)
            of_words = np.array([numbers.get(tag, UNLABELLED) for tag in itertools.chain(*said)], np.int32)
            if not of_words.any() or (table.flat and not self.flat):
                raise UserError(f"{table.source}: the model knows none of its tags; it knows {listing(self.tags)}")
            spoken = windows.first_token >= 0
            tags[windows.first_token[spoken]] = of_words[spoken]
            unknown = {tag for sentence in said for tag in sentence} - set(numbers)
            if unknown:
                remarks.append(f"tags unknown to the model, counted as missed: {listing(sorted(unknown), 5)}")
        if windows.cut_sentences:
            remarks.append(
                f"{windows.cut_sentences} sentences of more than {max_length} tokens read in overlapping windows"
            )
        if windows.cut_words:
            remarks.append(f"{windows.cut_words} words cut to the first {max_length - 2} tokens")
        return Examples(
            windows.input_ids, np.zeros(len(windows.input_ids), np.int8), windows.offsets, {},
            [table.places[row] for row in windows.sentence], table.source, token_targets={"tags": tags},
            records=TaggedWords(table, windows.first_token), record=windows.sentence, remarks=tuple(remarks),
        ), 0  # fmt: skip

    def _flat_where_the_model_is(self, table: WordTable) -> WordTable:
        """A few flat tags of which most are O look like types of entities where they are read."""
        if not self.flat or table.flat or table.tags is None:
            return table
        tags = [[tag if tag == OUTSIDE else tag[2:] for tag in sentence] for sentence in table.tags]
        if not set(itertools.chain(*tags)) <= set(self.tags):
            return table
        return dataclasses.replace(table, tags=tags, flat=True, remarks=())

    def _logits(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        """`[rows, length, tags]`."""
        return model(**model_inputs(batch), dropout_key=dropout_key).logits

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        return labelled(batch["tags"]).sum()

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        logits = self._logits(model, batch, dropout_key)
        return cross_entropy(logits, batch["tags"], self.stage.train.label_smoothing).sum()

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        return train_flops(config, tokens=tokens, row_length=row_length, scored=tokens, token_classes=len(self.tags))

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        logits = self._logits(model, batch, None)
        return Outputs(sums=loss_and_weight(logits, batch["tags"], "tag_"), by_token=best(logits, "tag"))

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss and accuracy over words; precision, recall and F1 of entities, over all and by type; or of the words of
        each tag, by scikit-learn, and the mean of their F1."""
        table, guess = examples.records.table, self._tags_of_words(outputs, examples.records)[0]
        if self.foreign and not self.flat:
            guess = guesses_as_iob2(guess)
        overall, by_type = tag_scores(table.tags, guess) if self.flat else entity_scores(table.tags, guess)
        metrics: Metrics = {
            "loss": sums["tag_loss"] / max(sums["tag_weight"], 1.0),
            "accuracy": accuracy(table.tags, guess),
            **overall,
            "words": sum(map(len, table.words)),
            "examples": len(table),
        }
        return metrics | ({"per_class": by_type} if by_type else {})

    def _tags_of_words(
        self, outputs: dict[str, np.ndarray], records: TaggedWords
    ) -> tuple[list[list[str]], list[list[float]]]:
        """The tags given to the words of each sentence, and their probabilities. A word without tokens, such as a
        space, gets O or, within an entity, the tag that goes on with it; of flat tags, ""."""
        there = np.maximum(records.first_token, 0)
        silent = records.first_token < 0
        numbers = np.where(silent, -1, outputs["tag"][there])
        tags = iter(
            [("" if self.flat else OUTSIDE) if number < 0 else self.tags[number] for number in numbers.tolist()]
        )
        probabilities = iter(np.where(silent, 1.0, outputs["tag_probability"][there]).tolist())
        words = records.table.words
        by_sentence = [list(itertools.islice(tags, len(sentence))) for sentence in words]
        their_own = [list(itertools.islice(probabilities, len(sentence))) for sentence in words]
        if silent.any() and not self.flat:
            mute = iter(silent.tolist())
            for of, probability in zip(by_sentence, their_own, strict=True):
                _go_on(of, probability, list(itertools.islice(mute, len(of))))
        return by_sentence, their_own

    def predictions(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[dict[str, Any]]:
        """`{"entities": [{"type": "PER", "text": "Ada", "start": 0, "end": 3, "probability": 0.98}], "words": ["Ada"],
        "tags": ["B-PER"]}`: offsets are characters of the text, a probability the mean of its words'.

        Of flat tags `{"tagged": [{"tag": "NOUN", "text": "film", "start": 2, "end": 6, "probability": 0.98}], ...}`: an
        item a word, with tag null where the word has no token.
        """
        table = examples.records.table
        tags, probabilities = self._tags_of_words(outputs, examples.records)
        for row in range(len(table)):
            if self.flat:
                found = {
                    "tagged": [
                        {"tag": tag or None} | self._span(table, row, place, place + 1, probabilities[row])
                        for place, tag in enumerate(tags[row])
                    ]
                }
            else:
                found = {
                    "entities": [
                        {"type": kind} | self._span(table, row, start, end, probabilities[row])
                        for kind, start, end in entities(tags[row])
                    ]
                }
            yield found | {"words": table.words[row], "tags": [tag or None for tag in tags[row]]}

    @staticmethod
    def _span(table: WordTable, row: int, start: int, end: int, probabilities: list[float]) -> dict[str, Any]:
        """Words `start` to `end` - 1 of a sentence."""
        first, last = table.starts[row][start], table.starts[row][end - 1] + len(table.words[row][end - 1])
        return {
            "text": table.texts[row][first:last],
            "start": first,
            "end": last,
            "probability": sum(probabilities[start:end]) / (end - start),
        }

    def summary(self, prediction: dict[str, Any]) -> str:
        if self.flat:
            return " ".join(f"{item['text']}/{item['tag']}" for item in prediction["tagged"])
        return ", ".join(f"{entity['type']} {entity['text']!r}" for entity in prediction["entities"]) or "no entity"

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        table = _with_words(table)
        if self.flat:
            pairs = list(zip((table.tags or [])[row], prediction["tags"], strict=True))
            right = sum(one == other for one, other in pairs)
            return "right" if right == len(pairs) else f"{right} of {len(pairs)} words are right"
        truth = entities((table.tags or [])[row])
        if truth == entities(prediction["tags"]):
            return "right"
        words = table.words[row]
        return "it has " + (", ".join(f"{kind} {' '.join(words[a:b])!r}" for kind, a, b in truth) or "no entity")

    def description(self) -> str:
        if self.flat:
            return f"Gives each word of a sentence one of {len(self.tags)} tags: {listing(self.tags)}."
        kinds = list(dict.fromkeys(tag[2:] for tag in self.tags if tag != OUTSIDE))
        return f"Marks {len(kinds)} types of entities in a sentence: {listing(kinds)}."

    def usage(self) -> str:
        strategy = "none" if self.flat else "first"  # transformers would merge words of one tag
        return f"""from transformers import pipeline

tagger = pipeline("token-classification", "PATH_OF_THIS_DIRECTORY", aggregation_strategy="{strategy}")
print(tagger("A sentence."))"""


def tags_of(train: Table, shape: BertConfig, *, new_head: bool) -> list[str]:
    """The tags that a model learns: those of the training data, O first; or its own, where it has them all.

    Raises:
      UserError: no word of the training data is part of an entity; or, of flat tags, all are the same.
    """
    table = _with_words(train)
    outside = set() if table.flat else {OUTSIDE}
    found = {tag for tags in table.tags or [] for tag in tags} | outside
    if len(found) < 2:
        reason = f"all tags are {found.pop()}" if table.flat else "no word is part of an entity, all tags are O"
        raise UserError(f"{train.source}: {reason}")
    own = in_usual_form(shape.id2label.values())
    if found <= set(own) and not new_head:
        return own
    return [*outside, *sorted(found - outside, key=lambda tag: ("" if table.flat else tag[2:], tag))]


def labelled(targets: jax.Array) -> jax.Array:
    """1 where a target is one, 0 where it is `UNLABELLED`."""
    return (targets != UNLABELLED).astype(jnp.float32)


def cross_entropy(logits: jax.Array, targets: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """The loss of each target (class n is n + 1), `[...]`; 0 where there is none. `logits [..., classes]`."""
    wanted = optax.smooth_labels(jax.nn.one_hot(jnp.maximum(targets - 1, 0), logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, wanted) * labelled(targets)


def loss_and_weight(logits: jax.Array, targets: jax.Array, prefix: str) -> dict[str, jax.Array]:
    return {f"{prefix}loss": cross_entropy(logits, targets).sum(), f"{prefix}weight": labelled(targets).sum()}


def best(logits: jax.Array, name: str) -> dict[str, jax.Array]:
    """The number of the likeliest class, and its probability (float32): both `[...]` of `logits [..., classes]`."""
    return {name: logits.argmax(-1), f"{name}_probability": jax.nn.softmax(logits).max(-1)}


def _go_on(tags: list[str], probabilities: list[float], silent: list[bool]) -> None:
    """Gives silent words within an entity its tag and the probability of the word before, in place."""
    spoken = [place for place, mute in enumerate(silent) if not mute]
    for kind, start, end in entities([tags[place] for place in spoken]):
        for place in range(spoken[start] + 1, spoken[end - 1]):
            if silent[place]:
                tags[place] = f"I-{kind}" if is_tag(tags[spoken[start]]) else kind
                probabilities[place] = probabilities[place - 1]


def _with_words(table: Table) -> WordTable:
    if not isinstance(table, WordTable):
        raise TypeError(f"{table.source}: a table of words is meant")
    return table
