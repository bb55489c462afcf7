"""Ranking: how relevant a passage is to a query, both read together (a cross-encoder)."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import jax
import numpy as np
import optax

from jaxlm.config import DataSettings, Stage
from jaxlm.data.columns import NOTHING, Known
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table, table_of_texts
from jaxlm.data.text_groups import PASSAGES, read_groups
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig
from jaxlm.ranking_metrics import Ranking as RankedList
from jaxlm.ranking_metrics import mean_metrics, ranked
from jaxlm.tasks.base import Metrics
from jaxlm.tasks.sequence import SequenceTask


class Ranking(SequenceTask):
    """`BertForSequenceClassification` with one output, whose sigmoid is the relevance of a passage to a query.

    Relevance is any number from 0 on. Divided by the largest, it is the probability that binary cross-entropy learns:
    of 0 and 1 that is the loss of Nogueira and Cho 2019 (https://arxiv.org/abs/1901.04085), of grades it keeps their
    order and their distances. (Squared error on the logit, which regression has, would leave scores without a scale
    that is the same for every query.) sentence-transformers' `CrossEncoder` trains and reads such a model alike.

    A pair that is too long loses tokens from the longer text first, so that a query of up to half the length stays
    whole. Rows of one query need not be neighbours: they belong together by their query's text.
    """

    name = "ranking"
    label_kind = "number"
    metrics_to_judge_by = ("mrr@10", "ndcg@10", "mrr", "map", "recall@10", "accuracy", "loss")
    outputs = 1
    score_activation = "torch.nn.modules.activation.Sigmoid"
    library = "sentence-transformers"

    def __init__(
        self, stage: Stage, tokenizer: TextTokenizer, largest: float | None = None, relevant: float | None = None
    ):
        super().__init__(stage, tokenizer)
        self.pairs = True  # a query and its passage
        self.largest = largest  # the relevance that is probability 1; None: that of each table
        self.relevant = relevant

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        labels = train.labels or []
        if min(labels) == max(labels):
            raise UserError(
                f"{train.source}: ranking learns from passages of different relevance; here each has {labels[0]:g}"
            )
        return cls(stage, tokenizer, stage.ranking.largest or float(max(labels)), stage.ranking.relevant)

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        return cls(stage, tokenizer, config.facts.get("largest"), config.facts.get("relevant"))

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known: Known = NOTHING
    ) -> Table:
        """Rows of query, passage and relevance, by the usual names of these columns or else in this order; or of query,
        passages that answer it (relevance 1) and passages that do not (0)."""
        table = read_groups(spec, split, settings, labelled=labelled, names=PASSAGES, judged=True, known=known)
        return _of_pairs(table, "which column is the passage? Choose with --data.text_pair NAME (or a position from 0)")

    @classmethod
    def from_texts(
        cls, source: str, texts: Sequence[str | bytes], pairs: Sequence[str] | None, settings: DataSettings
    ) -> Table:
        table = table_of_texts(source, texts, settings, pairs)
        return _of_pairs(table, "a query needs its passage: --text_pair, or --input FILE with a column of each")

    @classmethod
    def predict_flags(cls, pairs: bool) -> str:
        return '--text "a query" --text_pair "a passage"'

    def facts(self) -> dict[str, Any]:
        return {"largest": self.largest, "relevant": self.relevant}

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(config, id2label={0: "LABEL_0"}, problem_type=None)

    def targets(self, table: Table, training: bool) -> tuple[np.ndarray, np.ndarray]:
        values = np.array(table.labels, np.float64)
        largest = self.largest or max(float(values.max()), 0.0) or 1.0
        keep = (values >= 0) & (values <= largest)
        if not keep.all():
            first = int(np.flatnonzero(~keep)[0])
            if self.stage.data.bad_rows == "error":
                raise UserError(
                    f"{table.source}, {table.places[first]}: relevance {values[first]:g} is not between 0 and "
                    f"{largest:g}, the largest; set --ranking.largest, or pass --data.bad_rows skip"
                )
            if not keep.any():
                raise UserError(f"{table.source}: no row has a relevance between 0 and {largest:g}")
            table.skipped["relevance out of range"] = int((~keep).sum())
        return (values / largest).astype(np.float32), keep

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        smoothing = self.stage.train.label_smoothing
        return optax.sigmoid_binary_cross_entropy(logits[..., 0], labels * (1 - smoothing) + smoothing / 2)

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss; accuracy of "relevant" at probability 0.5 (where the truth is at least half of the largest relevance),
        with what always saying the more frequent would give; and the means over queries of `mean_metrics`, to which a
        passage that several rows of a query have (as of triplets) is one, of the highest relevance among them. Of equal
        scores the later row comes first."""
        logits, truth = outputs["logits"][:, 0].astype(np.float64), examples.targets["labels"]
        grades = np.array(examples.records.labels, np.float64)
        largest = self.largest or float(grades.max()) or 1.0
        relevant = min(1.0, largest / 2) if self.relevant is None else self.relevant
        rows, highest = _judged_passages(examples.records, grades)
        queries = [examples.records.texts[row] for row in rows]
        means = mean_metrics(rankings(queries, outputs["logits"][rows, 0], highest), relevant=relevant)
        share = float((truth >= 0.5).mean())
        return {
            "loss": float((np.logaddexp(0, logits) - truth * logits).mean()),
            "accuracy": float(((logits >= 0) == (truth >= 0.5)).mean()),
            "majority_accuracy": max(share, 1 - share),
            **means,
            "examples": len(truth),
        }

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """`{"score": 2.31, "probability": 0.91}`: the logit and its sigmoid."""
        logit = float(output["logits"][0])
        return {"score": logit, "probability": float(np.exp(-np.logaddexp(0, -logit)))}

    def summary(self, prediction: dict[str, Any]) -> str:
        return f"relevant with probability {prediction['probability']:.2f}"

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        return f"its relevance is {(table.labels or [])[row]:g}"

    def description(self) -> str:
        return "Tells how relevant a passage is to a query (a cross-encoder): the higher the score, the more."

    def usage(self) -> str:
        return """from sentence_transformers import CrossEncoder

model = CrossEncoder("PATH_OF_THIS_DIRECTORY")
scores = model.predict([("A query.", "A passage."), ("A query.", "Another one.")])  # sigmoids of the logits

# Or with transformers alone:
from transformers import AutoTokenizer, BertForSequenceClassification

tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_DIRECTORY")
model = BertForSequenceClassification.from_pretrained("PATH_OF_THIS_DIRECTORY")
logits = model(**tokenizer("A query.", "A passage.", truncation=True, return_tensors="pt")).logits"""


def rankings(queries: Sequence[str], scores: np.ndarray, grades: np.ndarray) -> Iterator[RankedList]:
    """The rows `[rows]` of each query, ranked by their scores."""
    for rows in _groups(queries):
        judged = grades[rows]
        yield RankedList(judged[ranked(scores[rows], rows)], judged)


def _judged_passages(table: Table, grades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last row of each passage of each query, in order, and the highest of its grades."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for row, (pair, grade) in enumerate(zip(zip(table.texts, table.pairs or (), strict=True), grades, strict=True)):
        found[pair] = row, max(grade, found.pop(pair, (0, grade))[1])
    return np.array([row for row, _ in found.values()]), np.array([grade for _, grade in found.values()])


def _groups(queries: Iterable[str]) -> Iterator[np.ndarray]:
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        rows.setdefault(query, []).append(row)
    yield from (np.array(members) for members in rows.values())


def _of_pairs(table: Table, remedy: str) -> Table:
    if table.pairs is None:
        raise UserError(f"{table.source}: {remedy}")
    return table
