"""Text classification: a text, or a pair, has one of several labels, or, where that is asked for, none of them."""

import dataclasses
import logging
import re
from collections.abc import Sequence
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
from jaxlm.tasks.sequence import SequenceTask, listing

log = logging.getLogger("jaxlm")

_MANY = 10  # rows, of which some have the same label


def label_names(table: Table, out_of_scope: str | None = None) -> list[str]:
    """The classes of a training table in the order of their numbers: as the source states, else sorted.

    Raises:
      UserError: there are fewer than two.
    """
    found = set(table.labels or []) - {out_of_scope}
    names = table.label_names or in_order(found)
    if len(found) < 2:
        only = f"only {next(iter(found))!r}" if found else "none"
        raise UserError(f"{table.source}: classification needs at least two labels; there is {only}")
    return [name for name in names if name != out_of_scope]


def in_order(names: set[str]) -> list[str]:
    """Numbers by size, then names by the alphabet."""

    def key(name: str) -> tuple[bool, float, str]:
        number = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name)
        return number is None, float(name) if number else 0.0, name

    return sorted(names, key=key)


def model_labels(shape: BertConfig, labels: list[str], *, new_head: bool) -> list[str]:
    """`labels` in the order of the model's own classes, as far as it has them: its classifier goes on where it has as
    many. Of two classes the order is the files': it says which one F1 is of."""
    own = list(shape.id2label.values())
    if sorted(own) == sorted(labels):
        return own
    if new_head or len(own) != len(labels) or own == [f"LABEL_{number}" for number in range(len(own))]:
        return labels
    new = [label for label in labels if label not in own]
    others = iter(new)
    gone = [label for label in own if label not in labels]
    log.warning(
        "the model's config has other classes (%s) in place of %s: they start from its classifier, if it has one, "
        "unless --model.new_head starts a new one", listing(gone), listing(new),
    )  # fmt: skip
    return labels if len(own) == 2 else [label if label in labels else next(others) for label in own]


_NONE_OF_THEM = -1


def numbers_of(names: Sequence[str]) -> dict[str, int]:
    """The class that each label in a file stands for; of a model that nobody told of names, LABEL_0 is 0, too."""
    numbers = {name: number for number, name in enumerate(names)}
    if list(numbers) == [f"LABEL_{number}" for number in numbers.values()]:
        numbers |= {str(number): number for number in numbers.values()}
    return numbers


class Classification(SequenceTask):
    """`BertForSequenceClassification`, softmax cross-entropy.

    With `labels.out_of_scope` set, rows of that label belong to none of the classes. They take no part in training; a
    text counts as one of them where the largest probability is below a threshold, chosen on dev for the best accuracy
    over all rows, as the "oos-threshold" baseline of Larson et al. 2019 (https://aclanthology.org/D19-1131).
    """

    name = "classification"
    label_kind = "class"
    metrics_to_judge_by = ("accuracy", "loss", "macro_f1", "f1", "matthews_correlation")

    def __init__(
        self,
        stage: Stage,
        tokenizer: TextTokenizer,
        labels: list[str],
        out_of_scope: str | None = None,
        threshold: float = 0.0,
    ):
        super().__init__(stage, tokenizer)
        self.labels = labels
        self.outputs = len(labels)
        self.out_of_scope = out_of_scope
        self.threshold = threshold
        self._awaits_dev = False  # which is read first after the training's table, and chooses the threshold
        if self.metric == "f1" and (len(labels) != 2 or out_of_scope is not None):
            count = f"{len(labels)}" + ("" if out_of_scope is None else f", and what is out of scope ({out_of_scope})")
            raise UserError(f"--train.metric f1 is for two classes; there are {count}: macro_f1 serves them")

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        out_of_scope = stage.labels.out_of_scope
        names = label_names(train, out_of_scope)
        if len(train.known_labels) == len(train) >= _MANY and stage.data.label is None:
            raise UserError(
                f"{train.source}: each of {len(train)} rows has a label of its own, such as {names[0]!r}; if that is "
                "the label, choose its column with --data.label"
            )
        task = cls(stage, tokenizer, model_labels(shape, names, new_head=stage.model.new_head), out_of_scope)
        task._awaits_dev = out_of_scope is not None
        return task

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        facts = config.facts
        return cls(stage, tokenizer, list(config.id2label.values()), facts.get("out_of_scope"),
                   float(facts.get("threshold", 0.0)))  # fmt: skip

    def facts(self) -> dict[str, Any]:
        return {} if self.out_of_scope is None else {"out_of_scope": self.out_of_scope, "threshold": self.threshold}

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(
            config, id2label=dict(enumerate(self.labels)), problem_type="single_label_classification"
        )

    def targets(self, table: Table, training: bool) -> tuple[np.ndarray, np.ndarray]:
        numbers = numbers_of(self.labels)
        labels = table.labels or []
        values = np.array([numbers.get(label, _NONE_OF_THEM) for label in labels], np.int32)
        outside = np.array([label == self.out_of_scope for label in labels])
        keep = (values >= 0) | outside
        if not keep.all():
            first = int(np.flatnonzero(~keep)[0])
            if self.stage.data.bad_rows == "error":
                none = "" if self.out_of_scope is None else f", and out of scope: {self.out_of_scope}"
                raise UserError(
                    f"{table.source}, {table.places[first]}: label {labels[first]!r} is none of the model's "
                    f"({listing(self.labels)}{none}); correct it, or pass --data.bad_rows skip"
                )
            if not keep.any():
                raise UserError(f"{table.source}: no row has a label that the model knows ({listing(self.labels)})")
            table.skipped["unknown label"] = int((~keep).sum())
        if self._awaits_dev and not training:
            self._awaits_dev = False
            if not outside.any():
                raise UserError(
                    f"{table.source}: no row is labelled {self.out_of_scope!r} (--labels.out_of_scope), and such rows "
                    "of dev choose the threshold below which a text belongs to none of the classes; there are "
                    f"{listing(sorted(table.known_labels))}. If every text has a class: --labels.out_of_scope None"
                )
        if training and outside.any():
            table.skipped["out of scope"] = int(outside.sum())
            keep &= ~outside
        return values, keep

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, self.outputs), self.stage.train.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def calibrate(self, outputs: dict[str, np.ndarray], examples: Examples) -> None:
        truth = examples.targets["labels"]
        if self.out_of_scope is None or not (truth == _NONE_OF_THEM).any():
            return
        probabilities = np.exp(_log_probabilities(outputs["logits"]))
        confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
        # Below the threshold lie the first n of the rows by confidence: right there are those out of scope.
        order = np.argsort(confidence, kind="stable")
        below = np.concatenate([[0], np.cumsum(truth[order] == _NONE_OF_THEM)])
        above = right.sum() - np.concatenate([[0], np.cumsum(right[order])])
        ranked = np.concatenate([[0.0], confidence[order], [2.0]])  # all may lie below, also those that are sure
        told = below + above
        told[1:-1][ranked[1:-2] == ranked[2:-1]] = -1  # equal confidences cannot be parted
        count = int(np.argmax(told))
        self.threshold = float((ranked[count] + ranked[count + 1]) / 2)

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss, accuracy, per-class precision/recall/F1 and the confusion matrix (rows: truth), by scikit-learn; of two
        classes also F1 of the second and Matthews' correlation, as GLUE has them."""
        from sklearn.metrics import confusion_matrix, matthews_corrcoef, precision_recall_fscore_support

        truth, log_probabilities = examples.targets["labels"], _log_probabilities(outputs["logits"])
        probabilities = np.exp(log_probabilities)
        guess = probabilities.argmax(1)
        inside = truth != _NONE_OF_THEM
        names, numbers = list(self.labels), list(range(self.outputs))
        if self.out_of_scope is not None:
            guess = np.where(probabilities.max(1) < self.threshold, _NONE_OF_THEM, guess)
            names, numbers = [*names, self.out_of_scope], [*numbers, _NONE_OF_THEM]
        precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=numbers, zero_division=0)
        metrics: Metrics = {
            "loss": float(-log_probabilities[inside, truth[inside]].sum() / max(inside.sum(), 1)),
            "accuracy": float((guess == truth).mean()),
            "macro_f1": float(f1[(support > 0) | np.isin(numbers, guess)].mean()),  # of classes that occur
            "majority_accuracy": float(support.max() / support.sum()),
            # 0 by definition; scikit-learn warns of it.
            "matthews_correlation": float(matthews_corrcoef(truth, guess)) if (guess != truth[0]).any() else 0.0,
            "examples": len(truth),
        }
        if len(names) == 2:
            metrics["f1"] = float(f1[1])
        if self.out_of_scope is not None:
            metrics |= {
                "in_scope_accuracy": float((guess == truth)[inside].mean()) if inside.any() else 0.0,
                "out_of_scope_recall": float(recall[-1]),
                "out_of_scope_precision": float(precision[-1]),
                "threshold": self.threshold,
            }
        return metrics | {
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
            },
            "confusion": confusion_matrix(truth, guess, labels=numbers).tolist(),
        }

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """`{"label": "positive", "probabilities": {"negative": 0.02, "positive": 0.98}}`."""
        probabilities = np.exp(_log_probabilities(output["logits"][None]))[0]
        best = int(probabilities.argmax())
        outside = self.out_of_scope is not None and probabilities[best] < self.threshold
        return {
            "label": self.out_of_scope if outside else self.labels[best],
            "probabilities": {name: float(p) for name, p in zip(self.labels, probabilities, strict=True)},
        }

    def summary(self, prediction: dict[str, Any]) -> str:
        return f"{prediction['label']} ({max(prediction['probabilities'].values()):.2f})"

    def description(self) -> str:
        none = "" if self.out_of_scope is None else f", or that it belongs to none ({self.out_of_scope})"
        return f"Tells which of {len(self.labels)} classes a text belongs to: {listing(self.labels)}{none}."


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
