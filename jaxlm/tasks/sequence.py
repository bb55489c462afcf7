"""What tasks over whole texts, or pairs of texts, share: one output vector an example, read from its first token."""

import abc
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.token_cache import encode
from jaxlm.data.tokenizer import Encoded
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForSequenceClassification
from jaxlm.tasks.base import DeviceBatch, Outputs, Task, model_inputs
from jaxlm.training.flops import train_flops


def listing(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class SequenceTask(Task):
    """`BertForSequenceClassification`, whatever its outputs mean."""

    model_class = BertForSequenceClassification
    outputs: int  # how many the head has
    labels: Sequence[str] = ()  # their names, where they are classes
    _trained_here = False  # and not a loaded model's

    @abc.abstractmethod
    def targets(self, table: Table, training: bool) -> tuple[np.ndarray, np.ndarray]:
        """What the examples of a table are to give, `[examples, ...]`, and which of them to keep (bool)."""

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        encoded = encode(self.tokenizer, table.texts, table.pairs, self.stage.data.max_length)
        targets: dict[str, np.ndarray] = {}
        remarks: tuple[str, ...] = ()
        if training:
            self.pairs, self._trained_here = table.pairs is not None, True
        elif self._trained_here and (table.pairs is not None) != self.pairs:
            here, there = ("single texts", "pairs") if self.pairs else ("pairs of texts", "single ones")
            raise UserError(
                f"{table.source} has {here}, and the training's data {there}; columns have to be called alike, or "
                "chosen (--data.text NAME, --data.text_pair NAME)"
            )
        if training and self.labels:  # they show whether the right column was read
            remarks = (f"{len(self.labels)} labels: {listing(self.labels, 10)}",)
        if table.labels is not None:
            values, keep = self.targets(table, training)
            if not keep.all():
                table, encoded, values = _choose(table, encoded, values, keep)
            targets = {"labels": values}
        return Examples(
            encoded.input_ids, encoded.token_type_ids, encoded.offsets, targets, table.places, table.source,
            records=table, remarks=remarks,
        ), encoded.truncated  # fmt: skip

    def logits(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        """`[rows, slots, outputs]`."""
        return model(**model_inputs(batch), pool_positions=batch["pool_positions"], dropout_key=dropout_key).logits

    @abc.abstractmethod
    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The loss of each example, `[rows, slots]`."""

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        return batch["example_weights"].sum()

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        losses = self.losses(self.logits(model, batch, dropout_key), batch["labels"])
        return (losses * batch["example_weights"]).sum()

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        return train_flops(config, tokens=tokens, row_length=row_length, pooled=examples, classes=self.outputs)

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        return Outputs(by_example={"logits": self.logits(model, batch, None)})


def _choose(table: Table, encoded: Encoded, values: np.ndarray, keep: np.ndarray) -> tuple[Table, Encoded, np.ndarray]:
    """The rows of a table, their tokens and targets, where `keep` is true."""
    lengths = np.diff(encoded.offsets)
    tokens = np.repeat(keep, lengths)
    encoded = encoded._replace(
        input_ids=encoded.input_ids[tokens],
        token_type_ids=encoded.token_type_ids[tokens],
        offsets=np.concatenate([[0], np.cumsum(lengths[keep])]),
    )
    return table.choose(np.flatnonzero(keep)), encoded, values[keep]
