"""From settings to the batches of a pre-training on prepared data: corpora, mixture, phases."""

import dataclasses
import math
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from jaxlm.config import Config, Phase
from jaxlm.data.order import MixedOrder
from jaxlm.data.prepared import PreparedData, is_prepared
from jaxlm.data.pretraining import Marks, PhasedBatches, RowBatches
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.parallel.mesh import row_shards, row_slice
from jaxlm.tasks import Task

_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "।", "۔", "؟")  # noqa: RUF001
_CLOSING = ('"', "'", ")", "]", "”", "’", "»", "」", "』", "）")  # noqa: RUF001


@dataclasses.dataclass(frozen=True)
class Corpora:
    """The prepared directories of a config, and their weights in the mixture."""

    data: list[PreparedData]
    weights: list[float]

    @property
    def tokenizer(self) -> Path:
        return self.data[0].tokenizer


def uses_prepared_data(config: Config) -> bool:
    return bool(config.data.mixture) or is_prepared(config.data.train)


def open_corpora(config: Config) -> Corpora:
    """Opens what `data.train` or `data.mixture` names.

    Raises:
      UserError: a directory cannot be used, or the task does not train on prepared rows.
    """
    if config.task != "masked_lm":
        raise UserError(f"prepared rows are for pre-training (--task masked_lm); the task is {config.task}")
    directories, weights = [config.data.train], [1.0]
    if config.data.mixture:
        parts = [item.rpartition("=") for item in config.data.mixture]
        directories = [directory for directory, _, _ in parts]
        try:
            weights = [float(weight) for _, _, weight in parts]
        except ValueError:
            weights = []
        if not weights or not all(0 < w < math.inf and w * 1e6 > sum(weights) for w in weights) or not all(directories):
            listing = " ".join(config.data.mixture)
            raise UserError(
                f"--data.mixture {listing}: DIRECTORY=WEIGHT each, with a weight above a millionth of all, is meant"
            )
    for directory in directories:
        if not is_prepared(directory):
            raise UserError(f"{directory} was not prepared: python -m jaxlm prepare CONFIG --output {directory}")
    data = [PreparedData(str(directory)) for directory in directories]
    first = data[0]
    for other in data:
        if other.manifest["tokenizer_sha256"] != first.manifest["tokenizer_sha256"]:
            raise UserError(f"{other.directory} was prepared with another tokenizer than {first.directory}")
        if config.objective.next_sentence and not other.next_sentence:
            raise UserError(f"{other.directory} was prepared without --objective.next_sentence; prepare it with it")
        if config.objective.next_sentence and other.manifest["documents_in_splits"].get("train", 0) < 2:
            raise UserError(f"{other.directory} has a single document: a sentence of another one is to be had nowhere")
    return Corpora(data, weights)


def total_steps(config: Config, corpora: Corpora) -> int:
    train = config.train
    if train.phases:
        return sum(phase.steps for phase in train.phases)
    rows = sum(len(data.rows("train", config.data.max_length)) for data in corpora.data)
    return train.steps or math.ceil(train.epochs * math.ceil(rows / train.batch_size) - 1e-9)


def row_batches(
    config: Config, corpora: Corpora, task: Task, tokenizer: TextTokenizer, mesh: Mesh
) -> tuple[dict[str, RowBatches | PhasedBatches], list[str]]:
    """The batches of each split, and a line on each.

    Training goes through the phases; one that has the row length of an earlier one goes on in its order. The rows of
    "dev" and "test" have the last phase's length, so that all evaluations of a run compare.
    """
    train, objective = config.train, config.objective
    marks = Marks(
        tokenizer.special_ids["cls"],
        tokenizer.special_ids["sep"],
        _ends_sentence(tokenizer) if objective.next_sentence else None,
    )

    def make(
        data: list[PreparedData], split: str, length: int, batch_size: int, steps: int | None, order: MixedOrder | None,
        first_step: int = 0, first_place: int = 0,
    ) -> RowBatches:  # fmt: skip
        rows = [part.rows(split, length) for part in data]
        total = sum(map(len, rows))
        batch_size = batch_size if order else min(batch_size, total)
        multiple = row_shards(mesh) * (train.micro_batches if order else 1)
        padded = -(-batch_size // multiple) * multiple
        process, processes = row_slice(mesh)
        share = padded // processes
        return RowBatches(
            corpora=rows,
            order=order,
            batch_size=batch_size,
            row_length=length,
            rows=padded,
            slots=max(part.most_windows for part in rows),
            steps=-(-total // batch_size) if steps is None else steps,
            seed=config.seed,
            marks=marks,
            finish=lambda batch, step: task.finish(batch, config.seed, step),
            first_step=first_step,
            first_place=first_place,
            first_row=process * share,
            last_row=(process + 1) * share,
        )

    phases = train.phases or (Phase(steps=total_steps(config, corpora)),)
    parts: list[RowBatches] = []
    used: dict[int, int] = {}  # rows seen so far, by length
    for phase in phases:
        length, batch_size = phase.max_length or config.data.max_length, phase.batch_size or train.batch_size
        sizes = [len(data.rows("train", length)) for data in corpora.data]
        order = MixedOrder(sizes, corpora.weights, config.seed)
        first_step = sum(part.steps for part in parts)
        parts.append(
            make(corpora.data, "train", length, batch_size, phase.steps, order, first_step, used.get(length, 0))
        )
        used[length] = used.get(length, 0) + phase.steps * batch_size
    batches: dict[str, RowBatches | PhasedBatches] = {"train": PhasedBatches(parts) if len(parts) > 1 else parts[0]}
    notes = [_note("train", part) for part in parts]
    for split in ("dev", "test"):
        spec = getattr(config.data, split)
        if spec is None:
            continue
        if not is_prepared(spec):
            raise UserError(f"--data.{split} {spec}: with prepared training data a prepared directory is meant")
        held_out = PreparedData(spec)
        if held_out.manifest["tokenizer_sha256"] != corpora.data[0].manifest["tokenizer_sha256"]:
            raise UserError(f"--data.{split} {spec} was prepared with another tokenizer than the training data")
        found = make([held_out], "validation", parts[-1].row_length, train.eval_batch_size, None, None)
        batches[split] = found
        notes.append(_note(split, found))
    return batches, notes


def _ends_sentence(tokenizer: TextTokenizer) -> np.ndarray:
    """What `jaxlm.data.next_sentence.pair` asks for."""
    ends = np.zeros(tokenizer.vocab_size, np.int8)
    for kind, tokens in enumerate((_SENTENCE_ENDS, _CLOSING), 1):
        ends[[number for token in tokens if (number := tokenizer.token_id(token)) is not None]] = kind
    return ends


def _note(split: str, batches: RowBatches) -> str:
    rows = sum(map(len, batches.corpora))
    tokens = sum(corpus.tokens for corpus in batches.corpora)
    return (
        f"{split}: {rows} rows of {batches.row_length}, {batches.fill:.1%} filled, {tokens} tokens; "
        f"{batches.batch_size} rows a step, {batches.steps} steps"
    )
