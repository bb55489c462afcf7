"""Regression: a text, or a pair, has a score, such as how similar the two are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.models import BertConfig
from jaxlm.tasks.base import Metrics
from jaxlm.tasks.sequence import SequenceTask


class Regression(SequenceTask):
    """`BertForSequenceClassification` with one output and `problem_type` regression, mean squared error."""

    name = "regression"
    label_kind = "number"
    metrics_to_judge_by = ("spearman", "pearson", "loss")
    outputs = 1

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(config, id2label={0: "LABEL_0"}, problem_type="regression")

    def targets(self, table: Table, training: bool) -> tuple[np.ndarray, np.ndarray]:
        values = np.array(table.labels, np.float32)
        return values, np.ones(len(values), bool)

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.square(logits[..., 0] - labels)

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Mean squared error and, by scipy, both correlations, as GLUE has them for STS-B."""
        scores, truth = outputs["logits"][:, 0].astype(np.float64), np.array(examples.records.labels, np.float64)
        return {
            "loss": float(np.square(scores - truth).mean()),
            "pearson": correlation("pearsonr", scores, truth),
            "spearman": correlation("spearmanr", scores, truth),
            "examples": len(truth),
        }

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """`{"score": 3.8}`."""
        return {"score": float(output["logits"][0])}

    def summary(self, prediction: dict[str, Any]) -> str:
        return f"{prediction['score']:.3f}"

    def description(self) -> str:
        return "Gives a text, or a pair of texts, a score."


def correlation(kind: str, one: np.ndarray, other: np.ndarray) -> float:
    """scipy's `pearsonr` or `spearmanr`; 0 where it is not defined, because all values of one side are the same."""
    from scipy import stats

    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(getattr(stats, kind)(one, other).statistic)
