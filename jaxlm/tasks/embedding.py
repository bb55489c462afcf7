"""Sentence embeddings: texts that belong together get vectors that point the same way."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import DataSettings, EmbeddingSettings, Stage
from jaxlm.data.columns import NOTHING, Known
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Problems, Table
from jaxlm.data.text_groups import read_groups
from jaxlm.data.token_cache import encode
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, Pooling, SentenceEncoder
from jaxlm.models.embedding import unit
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, Task, model_inputs
from jaxlm.tasks.pairs import contrastive_losses, cosent_loss, cosines, pair_metrics, score_metrics
from jaxlm.training.flops import train_flops

log = logging.getLogger("jaxlm")


class Embedding(Task):
    """`SentenceEncoder`. Each text of a row is an example of its own; those of a row are a group, and share a batch."""

    name = "embedding"
    model_class = SentenceEncoder
    label_kind = None
    metrics_to_judge_by = ("spearman", "pearson", "mrr", "accuracy", "loss")
    library = "sentence-transformers"

    def __init__(self, stage: Stage, tokenizer: TextTokenizer, settings: EmbeddingSettings, members: int = 2):
        super().__init__(stage, tokenizer)
        self.settings = settings
        self.members = members  # texts of a group in training
        self._judged_by_scores: bool | None = None

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        settings = stage.embedding
        if settings.loss != "contrastive":
            scores = _scores(train, Problems(train.source, stage.data.bad_rows), loss=settings.loss)
            known = scores[np.isfinite(scores)]
            if not len(known):
                raise UserError(
                    f"{train.source}: no row has a score that is a number, which {settings.loss} learns from"
                )
            if len(known) and known.min() == known.max() and settings.loss == "cosent":
                raise UserError(
                    f"{train.source}: all scores are {known[0]:g}; cosent learns from higher and lower ones"
                )
        if settings.loss == "cosine":
            lowest = float(known.min()) if settings.lowest is None else settings.lowest
            highest = float(known.max()) if settings.highest is None else settings.highest
            if lowest >= highest:
                raise UserError(
                    f"{train.source}: scores from {lowest:g} to {highest:g}; say with --embedding.lowest and "
                    "--embedding.highest which are cosines of 0 and 1"
                )
            settings = dataclasses.replace(settings, lowest=lowest, highest=highest)
        return cls(stage, tokenizer, settings, 2 if train.negatives is None else 3)

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        found = config.facts.get("embedding", {})
        known = {item.name for item in dataclasses.fields(EmbeddingSettings)}
        return cls(stage, tokenizer, EmbeddingSettings(**{name: found[name] for name in found if name in known}))

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known: Known = NOTHING
    ) -> Table:
        return read_groups(spec, split, settings, labelled=labelled, known=known)

    def configure(self, config: BertConfig) -> BertConfig:
        given, settings = config.pooling or Pooling(), self.settings
        normalize = given.normalize if settings.normalize is None else settings.normalize
        mode, max_length = settings.pooling or given.mode, self.stage.data.max_length
        pooling = dataclasses.replace(given, mode=mode, normalize=normalize, max_length=max_length)
        return dataclasses.replace(config, pooling=pooling)

    def facts(self) -> dict[str, Any]:
        return {"embedding": dataclasses.asdict(self.settings)}

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        table, scores = self._answers(table, training)
        if not training and table.pairs is not None:
            self._judge_by(table, scores is not None)
        columns = [column for column in (table.texts, table.pairs, table.negatives) if column is not None]
        if scores is not None and len(columns) > 2:
            raise UserError(f"{table.source}: a score belongs to a pair, and there are negatives as well")
        if training and len(columns) != self.members:
            raise UserError(f"{table.source}: {len(columns)} texts a row instead of {self.members}")
        texts = [text for row in zip(*columns, strict=True) for text in row]
        encoded = encode(self.tokenizer, texts, max_length=self.stage.data.max_length)
        numbers: dict[str, int] = {}
        same = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int32)
        targets = {"same_texts": same}
        if scores is not None:
            targets["scores"] = np.repeat(scores, len(columns)).astype(np.float32)
        places = [place for place in table.places for _ in columns]
        return Examples(
            encoded.input_ids, encoded.token_type_ids, encoded.offsets, targets, places, table.source,
            group=len(columns), records=table,
        ), encoded.truncated  # fmt: skip

    def _answers(self, table: Table, training: bool) -> tuple[Table, np.ndarray | None]:
        """The rows to use, and their scores `[rows]` where they have any."""
        settings = self.settings
        if table.pairs is None:
            return table, None
        scored = not training and settings.positive not in (table.labels or ()) and _are_numbers(table.labels)
        if settings.positive is not None and (table.labels is not None or training) and not scored:
            return _labelled(table, settings.positive), None
        if table.labels is None:
            if training and settings.loss != "contrastive":
                raise UserError(f"{table.source}: --embedding.loss {settings.loss} learns from scores; which column "
                                "has them? --data.label NAME")  # fmt: skip
            return table, None
        if training and settings.loss == "contrastive":
            raise UserError(
                f"{table.source} has labels, and a contrastive loss takes every pair for one that belongs together: "
                "choose those with --embedding.positive LABEL, or learn scores with --embedding.loss cosine or cosent"
            )
        problems = Problems(table.source, self.stage.data.bad_rows)
        scores = _scores(table, problems, self.stage.embedding.lowest, self.stage.embedding.highest, loss=settings.loss)
        keep = np.isfinite(scores)
        if not keep.any():
            raise UserError(f"{table.source}: no row has a usable score ({problems.counts})")
        if not keep.all():
            table.skipped.update(problems.counts)
            table, scores = table.choose(np.flatnonzero(keep)), scores[keep]
        return table, scores

    def _judge_by(self, table: Table, scored: bool) -> None:
        """Dev, which is read first, decides what the best checkpoint goes by, unless that is set."""
        if self._judged_by_scores is not None:
            return
        self._judged_by_scores = scored
        possible = ("spearman", "pearson") if scored else ("mrr", "accuracy", "loss")
        if scored and self.settings.loss == "cosine":
            possible = (*possible, "loss")
        if self.stage.train.metric is None:
            self.metric = possible[0]
        elif self.metric not in possible:
            kind = "pairs with scores" if scored else "pairs without scores"
            raise UserError(f"--train.metric is {self.metric}; {table.source} has {kind}, which are judged by one of "
                            f"{', '.join(possible)}")  # fmt: skip

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        return batch["example_weights"].sum() / self.members

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        size = self.stage.train.batch_size * self.members
        empty = batch["example_weights"] == 0
        places = jnp.where(empty, size, batch["batch_places"]).reshape(-1)

        def gathered(values: jax.Array) -> jax.Array:
            """`[rows, slots, ...]` to `[groups, members, ...]`, wherever the rows lie: vectors cross devices here."""
            flat = values.reshape(-1, *values.shape[2:])
            whole = jnp.zeros((size, *flat.shape[1:]), flat.dtype).at[places].set(flat, mode="drop")
            return whole.reshape(-1, self.members, *flat.shape[1:])

        vectors = unit(gathered(sentence_vectors(model, batch, dropout_key)))
        there = gathered(batch["example_weights"])[:, 0]
        if self.settings.loss == "contrastive":
            same = gathered(batch["same_texts"])
            losses = contrastive_losses(vectors, same, there, self.settings.scale, self.settings.symmetric)
        elif self.settings.loss == "cosent":
            cosine = (vectors[:, 0] * vectors[:, 1]).sum(-1)
            return cosent_loss(cosine, gathered(batch["scores"])[:, 0], there, self.settings.scale) * there.sum()
        else:
            lowest, highest = self._score_range()
            wanted = (gathered(batch["scores"])[:, 0] - lowest) / (highest - lowest)
            losses = jnp.square((vectors[:, 0] * vectors[:, 1]).sum(-1) - wanted)
        return (losses * there).sum()

    def _score_range(self) -> tuple[float, float]:
        lowest, highest = self.settings.lowest, self.settings.highest
        if lowest is None or highest is None:
            raise ValueError("the scores that are cosines of 0 and 1 are known to a task made `for_training`")
        return lowest, highest

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        """Those of the encoder; the products of the vectors with each other are not counted."""
        cls = config.pooling is not None and config.pooling.mode == "cls"
        scored = examples * self.members if cls else tokens
        return train_flops(config, tokens=tokens, row_length=row_length, scored=scored)

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        return Outputs(by_example={"vectors": sentence_vectors(model, batch, None)})

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """`jaxlm.tasks.pairs.score_metrics` or, where the pairs have no scores, `pair_metrics`."""
        groups = _grouped(outputs["vectors"], examples.group)
        if examples.group < 2:
            raise UserError(f"{examples.source}: an evaluation needs pairs, with or without scores")
        if "scores" in examples.targets:
            scores = np.array([float(label) for label in examples.records.labels])
            return score_metrics(groups, scores, self.settings)
        if self.settings.loss != "contrastive":
            log.warning("%s has no column of scores, which the model learnt from: it is judged as pairs that belong "
                        "together are (--data.label NAME chooses a column)", examples.source)  # fmt: skip
        return pair_metrics(groups, _grouped(examples.targets["same_texts"], examples.group), self.settings)

    def predictions(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[dict[str, Any]]:
        """`{"vector": [0.021, -0.13, ...]}` for a text, `{"similarity": 0.83}` (the cosine) for a pair."""
        if examples.group == 1:
            for vector in outputs["vectors"]:
                yield {"vector": rounded(vector)}
        else:
            groups = _grouped(outputs["vectors"], examples.group)
            for similarity in cosines(groups[:, 0], groups[:, 1]):
                yield {"similarity": float(similarity)}

    def summary(self, prediction: dict[str, Any]) -> str:
        if "vector" in prediction:
            return f"a vector of {len(prediction['vector'])} numbers"
        return f"similarity {prediction['similarity']:.3f}"

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        return "they belong together" if table.labels is None else f"it is labelled {table.labels[row]}"

    def description(self) -> str:
        return "Gives a text a vector; the cosine of two vectors says how much their texts have to do with each other."

    def usage(self) -> str:
        return """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH_OF_THIS_DIRECTORY")
vectors = model.encode(["A text.", "Another text."])
print(model.similarity(vectors, vectors))"""


def sentence_vectors(model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
    """The vectors of a packed batch's texts, `[rows, slots, hidden]`."""
    return model(
        **model_inputs(batch), pool_positions=batch["pool_positions"], dropout_key=dropout_key
    ).sentence_embedding


def _grouped(values: np.ndarray, members: int) -> np.ndarray:
    return values.reshape(-1, members, *values.shape[1:])


def _are_numbers(labels: Sequence[Any] | None) -> bool:
    try:
        return bool(labels) and all(math.isfinite(float(label)) for label in labels or ())
    except ValueError:
        return False


def _labelled(table: Table, label: str) -> Table:
    """The rows with a label."""
    if table.labels is None:
        raise UserError(f"{table.source}: --embedding.positive chooses rows by a label; which column has it? "
                        "--data.label NAME")  # fmt: skip
    keep = np.array([found == label for found in table.labels])
    if not keep.any():
        known = ", ".join(sorted(table.known_labels)[:10])
        raise UserError(f"{table.source}: no row is labelled {label!r} (--embedding.positive); there are {known}")
    if not keep.all():
        table.skipped[f"not labelled {label}"] = int((~keep).sum())
    return table.choose(np.flatnonzero(keep))


def _scores(
    table: Table, problems: Problems, lowest: float | None = None, highest: float | None = None, *, loss: str
) -> np.ndarray:
    """A table's labels as numbers, NaN where one is none that serves; `problems` stops at it or counts it."""
    if table.labels is None:
        raise UserError(f"{table.source}: --embedding.loss {loss} learns from scores; which column has them? "
                        "--data.label NAME")  # fmt: skip
    scores = np.full(len(table), np.nan)
    for row, (label, place) in enumerate(zip(table.labels, table.places, strict=True)):
        try:
            score = float(label)
        except ValueError:
            problems.report_at(place, "a score that is no number", f" ({label!r})")
            continue
        if not math.isfinite(score):
            problems.report_at(place, "a score that is no finite number", f" ({label})")
        elif (lowest is not None and score < lowest) or (highest is not None and score > highest):
            problems.report_at(place, "a score outside of --embedding.lowest to --embedding.highest", f" ({label})")
        else:
            scores[row] = score
    return scores


def rounded(vector: np.ndarray) -> list[float]:
    """The numbers of a vector, to the eight digits that a float32 has."""
    return [float(f"{value:.8g}") for value in vector]
