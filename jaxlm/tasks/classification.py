"""Text classification: a text, or a pair, has one of several labels."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from jaxlm.config import Stage
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForSequenceClassification
from jaxlm.tasks.base import DeviceBatch, Metrics, Task
from jaxlm.training.flops import train_flops


def label_names(table: Table) -> list[str]:
    """The classes of a training table in the order of their numbers: as the source states, else sorted.

    Raises:
      UserError: there are fewer than two.
    """
    found = set(table.labels or [])
    names = table.label_names or sorted(
        found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    if len(found) < 2:
        only = f"only {next(iter(found))!r}" if found else "none"
        raise UserError(f"{table.source}: classification needs at least two labels; there is {only}")
    return list(names)


class Classification(Task):
    """`BertForSequenceClassification`, softmax cross-entropy."""

    model_class = BertForSequenceClassification
    labelled = True
    metric = "accuracy"
    larger_is_better = True

    def __init__(self, stage: Stage, tokenizer: TextTokenizer, labels: list[str]):
        super().__init__(stage, tokenizer)
        self.labels = labels

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(
            config, id2label=dict(enumerate(self.labels)), problem_type="single_label_classification"
        )

    def examples(self, table: Table) -> tuple[Examples, int]:
        encoded = self.tokenizer.encode(table.texts, table.pairs, self.stage.data.max_length)
        keep = np.ones(len(table), bool)
        targets = {}
        if table.labels is not None:
            numbers = {name: number for number, name in enumerate(self.labels)}
            values = np.array([numbers.get(label, -1) for label in table.labels], np.int32)
            if (unknown := np.flatnonzero(values < 0)).size:
                first = unknown[0]
                if self.stage.data.bad_rows == "error":
                    raise UserError(
                        f"{table.source}, {table.places[first]}: label {table.labels[first]!r} is none of the model's "
                        f"({_listing(self.labels)}); correct it, or pass --data.bad_rows skip"
                    )
                keep = values >= 0
                table.skipped["unknown label"] = len(unknown)
            targets["labels"] = values
        places = table.places
        if not keep.all():
            if not keep.any():
                raise UserError(f"{table.source}: no row has a label that the model knows ({_listing(self.labels)})")
            chosen = np.flatnonzero(keep)
            lengths = np.diff(encoded.offsets)
            tokens = np.repeat(keep, lengths)
            encoded = encoded._replace(
                input_ids=encoded.input_ids[tokens],
                token_type_ids=encoded.token_type_ids[tokens],
                offsets=np.concatenate([[0], np.cumsum(lengths[keep])]),
            )
            targets = {name: value[keep] for name, value in targets.items()}
            places = [places[index] for index in chosen]
        found = Examples(encoded.input_ids, encoded.token_type_ids, encoded.offsets, targets, places, table.source)
        return found, encoded.truncated

    def _logits(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        return model(
            batch["input_ids"],
            token_type_ids=batch["token_type_ids"],
            position_ids=batch["positions"],
            segment_ids=batch["segment_ids"],
            pool_positions=batch["pool_positions"],
            example_ids=batch["example_ids"],
            dropout_key=dropout_key,
        ).logits

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        return batch["example_weights"].sum()

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        logits = self._logits(model, batch, dropout_key)
        smoothing = self.stage.train.label_smoothing
        targets = optax.smooth_labels(jax.nn.one_hot(batch["labels"], len(self.labels)), smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
        return (losses * batch["example_weights"]).sum()

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        return train_flops(config, tokens=tokens, row_length=row_length, pooled=examples, classes=len(self.labels))

    def evaluation_sums(self, model: Any, batch: DeviceBatch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        return {}, {"logits": self._logits(model, batch, None)}

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss, accuracy, per-class precision/recall/F1 and the confusion matrix (rows: truth), by scikit-learn."""
        from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

        logits, truth = outputs["logits"].astype(np.float64), examples.targets["labels"]
        log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        guess = logits.argmax(1)
        numbers = np.arange(len(self.labels))
        precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=numbers, zero_division=0)
        return {
            "loss": float(-log_probabilities[np.arange(len(truth)), truth].mean()),
            "accuracy": float((guess == truth).mean()),
            "macro_f1": float(f1.mean()),
            "majority_accuracy": float(support.max() / support.sum()),
            "examples": len(truth),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(self.labels, precision, recall, f1, support, strict=True)
            },
            "confusion": confusion_matrix(truth, guess, labels=numbers).tolist(),
        }

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """`{"label": "positive", "probabilities": {"negative": 0.02, "positive": 0.98}}`."""
        logits = output["logits"].astype(np.float64)
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        return {
            "label": self.labels[int(probabilities.argmax())],
            "probabilities": {name: float(p) for name, p in zip(self.labels, probabilities, strict=True)},
        }

    def description(self) -> str:
        return f"Tells which of {len(self.labels)} classes a text belongs to: {_listing(self.labels)}."


def _listing(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
