"""Multi-label classification: any number of labels apply to a text, each by itself."""

import dataclasses
import logging
from typing import Any, Self

import jax
import numpy as np
import optax

from jaxlm.config import Stage
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig
from jaxlm.tasks.base import Metrics
from jaxlm.tasks.classification import in_order, listing, model_labels, numbers_of
from jaxlm.tasks.sequence import SequenceTask

log = logging.getLogger("jaxlm")


class MultiLabel(SequenceTask):
    """`BertForSequenceClassification` with `problem_type` multi_label_classification: a sigmoid for each label.

    The loss of an example is the mean over its labels, as in `torch.nn.BCEWithLogitsLoss`. A label is given from a
    threshold on, one for all: `labels.threshold`, or what gives the best micro-F1 on dev.
    """

    name = "multi_label"
    label_kind = "set"
    metrics_to_judge_by = ("micro_f1", "macro_f1", "subset_accuracy", "loss")

    def __init__(self, stage: Stage, tokenizer: TextTokenizer, labels: list[str], threshold: float | None = None):
        super().__init__(stage, tokenizer)
        self.labels = labels
        self.outputs = len(labels)
        self.threshold = threshold or stage.labels.threshold or 0.5

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        found = {name for names in train.labels or [] for name in names}
        if len(found) < 2:
            only = f"only {next(iter(found))!r}" if found else "none"
            raise UserError(f"{train.source}: multi_label needs at least two labels; there is {only}")
        if found == {"0", "1"} and all(len(names) == 2 for names in train.labels or []):
            raise UserError(f"{train.source}: 0 or 1 for each label, as it seems; a list of those that apply is meant")
        parts = {part for name in found for part in name.split()}
        alone = all(len(names) < 2 for names in train.labels or [])
        if alone and len(parts) < len(found) and 2 * sum(" " in name for name in found) > len(found):
            log.warning(
                "%s: no text has two labels, and most names have spaces, as %r has; labels are parted by commas, "
                "semicolons or bars", train.source, max(in_order(found), key=len),
            )  # fmt: skip
        return cls(
            stage, tokenizer, model_labels(shape, train.label_names or in_order(found), new_head=stage.model.new_head)
        )

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        return cls(stage, tokenizer, list(config.id2label.values()), config.facts.get("threshold"))

    def facts(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(
            config, id2label=dict(enumerate(self.labels)), problem_type="multi_label_classification"
        )

    def targets(self, table: Table, training: bool) -> tuple[np.ndarray, np.ndarray]:
        numbers = numbers_of(self.labels)
        values = np.zeros((len(table), len(self.labels)), np.float32)
        keep = np.ones(len(table), bool)
        for row, names in enumerate(table.labels or []):
            if unknown := [name for name in names if name not in numbers]:
                if self.stage.data.bad_rows == "error":
                    raise UserError(
                        f"{table.source}, {table.places[row]}: label {unknown[0]!r} is none of the model's "
                        f"({listing(self.labels)}); correct it, or pass --data.bad_rows skip"
                    )
                keep[row] = False
            else:
                values[row, [numbers[name] for name in names]] = 1
        if not keep.any():
            raise UserError(f"{table.source}: no row has only labels that the model knows ({listing(self.labels)})")
        if not keep.all():
            table.skipped["unknown label"] = int((~keep).sum())
        return values, keep

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        smoothing = self.stage.train.label_smoothing
        targets = labels * (1 - smoothing) + smoothing / 2
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)

    def calibrate(self, outputs: dict[str, np.ndarray], examples: Examples) -> None:
        if self.stage.labels.threshold is None:
            self.threshold = best_threshold(_sigmoid(outputs["logits"]), examples.targets["labels"])

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss, micro and macro F1, per-label precision/recall/F1 and the share of rows right in every label, by
        scikit-learn."""
        from sklearn.metrics import f1_score, precision_recall_fscore_support

        logits, truth = outputs["logits"].astype(np.float64), examples.targets["labels"].astype(int)
        guess = (_sigmoid(logits) >= self.threshold).astype(int)
        # A single column is binary to scikit-learn, with two classes.
        chosen = {"zero_division": 0} | ({"labels": [1]} if len(self.labels) == 1 else {})
        precision, recall, f1, support = precision_recall_fscore_support(truth, guess, average=None, **chosen)
        losses = np.logaddexp(0, logits) - truth * logits
        return {
            "loss": float(losses.mean()),
            "micro_f1": float(f1_score(truth, guess, average="micro", **chosen)),
            "macro_f1": float(f1.mean()),
            "subset_accuracy": float((guess == truth).all(1).mean()),
            "threshold": self.threshold,
            "examples": len(truth),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(self.labels, precision, recall, f1, support, strict=True)
            },
        }

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """`{"labels": ["joy"], "probabilities": {"anger": 0.02, "joy": 0.98}}`."""
        probabilities = _sigmoid(output["logits"])
        return {
            "labels": [name for name, p in zip(self.labels, probabilities, strict=True) if p >= self.threshold],
            "probabilities": {name: float(p) for name, p in zip(self.labels, probabilities, strict=True)},
        }

    def summary(self, prediction: dict[str, Any]) -> str:
        return ", ".join(prediction["labels"]) or "none of the labels"

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        truth = (table.labels or [])[row]
        return "right" if set(prediction["labels"]) == set(truth) else f"it has {', '.join(truth) or 'none'}"

    def description(self) -> str:
        return f"Tells which of {len(self.labels)} labels apply to a text: {listing(self.labels)}."


def best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of the best micro-F1, halfway between two probabilities that occur; 0.5 where no label is right."""
    order = np.argsort(-probabilities, axis=None, kind="stable")
    ranked, hits = probabilities.ravel()[order], np.cumsum(truth.ravel()[order])
    if not hits[-1]:
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])  # 2 TP / (predicted + true), with the first n predicted
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal probabilities cannot be parted
    best = int(np.argmax(f1))
    following = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + following) / 2)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(logits.astype(np.float64))
