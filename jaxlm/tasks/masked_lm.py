"""Masked language modelling, with or without next-sentence prediction: pre-training on plain text."""

import math
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config import DataSettings, Stage
from jaxlm.data.loader import Batch, Examples
from jaxlm.data.masking import mask_tokens, most_predictions
from jaxlm.data.sources import Table, read_table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForMaskedLM, BertForPreTraining
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, Task
from jaxlm.training.flops import train_flops


class MaskedLM(Task):
    """`BertForMaskedLM`, or `BertForPreTraining`; documents are cut into windows, and no two see each other."""

    name = "masked_lm"
    model_class: type[BertForMaskedLM] | type[BertForPreTraining] = BertForMaskedLM
    label_kind = None
    metrics_to_judge_by = ("loss", "accuracy")

    def __init__(self, stage: Stage, tokenizer: TextTokenizer):
        super().__init__(stage, tokenizer)
        self.next_sentence = stage.objective.next_sentence
        self.model_class = BertForPreTraining if self.next_sentence else BertForMaskedLM

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known_labels: Collection[str] = ()
    ) -> Table:
        return read_table(spec, split, settings, label_kind=None, running_text=True)

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        """Windows of at most `max_length` tokens, [CLS] and [SEP] included; nothing is cut away."""
        if self.next_sentence:
            raise UserError(
                f"{table.source}: next-sentence prediction draws its pairs from prepared data: "
                "python -m jaxlm prepare CONFIG --data.train TEXT --output DIRECTORY, then --data.train DIRECTORY"
            )
        room = self.stage.data.max_length - 2
        first, last = self.tokenizer.special_ids["cls"], self.tokenizer.special_ids["sep"]
        windows: list[np.ndarray] = []
        places: list[str] = []
        for text, place in zip(table.texts, table.places, strict=True):
            ids = self.tokenizer.tokenize_text(text)
            for start in range(0, len(ids), room):
                windows.append(np.concatenate([[first], ids[start : start + room], [last]]))
                places.append(place)
        if not windows:
            raise UserError(f"{table.source}: no text")
        offsets = np.zeros(len(windows) + 1, np.int64)
        np.cumsum([len(window) for window in windows], out=offsets[1:])
        tokens = np.concatenate(windows).astype(np.int32)
        return Examples(tokens, np.zeros(len(tokens), np.int8), offsets, {}, places, table.source), 0

    def finish(self, batch: Batch, seed: int, step: int) -> Batch:
        objective = self.stage.objective
        slots = batch.pop("slot_examples").shape[1]
        if not self.next_sentence:
            for unused in ("pool_positions", "example_weights"):
                del batch[unused]
        batch.pop("batch_places", None)
        return mask_tokens(
            batch,
            seed=seed,
            step=step,
            settings=objective,
            predictions=most_predictions(batch["input_ids"].shape[1], slots, objective),
            vocabulary=self.tokenizer.vocabulary,
        )

    def _outputs(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> tuple[jax.Array, Any]:
        """Logits of the masked tokens, and of what follows (None without next-sentence prediction)."""
        inputs = {
            "token_type_ids": batch["token_type_ids"],
            "position_ids": batch["positions"],
            "segment_ids": batch["segment_ids"],
            "predict_positions": batch["predict_positions"],
            "example_ids": batch["example_ids"],
            "dropout_key": dropout_key,
        }
        if not self.next_sentence:
            return model(batch["input_ids"], **inputs).logits, None
        output = model(batch["input_ids"], pool_positions=batch["pool_positions"], **inputs)
        return output.prediction_logits, output.seq_relationship_logits

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        masked = batch["predict_weights"].sum()
        return jnp.stack([masked, batch["example_weights"].sum()]) if self.next_sentence else masked

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        logits, follows = self._outputs(model, batch, dropout_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["predict_labels"])
        masked = (losses * batch["predict_weights"]).sum()
        if follows is None:
            return masked
        losses = optax.softmax_cross_entropy_with_integer_labels(follows, batch["follows"])
        return jnp.stack([masked, (losses * batch["example_weights"]).sum()])

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        predictions, pooled = self.stage.objective.mask_rate * tokens, examples if self.next_sentence else 0.0
        return train_flops(
            config, tokens=tokens, row_length=row_length, predictions=predictions, pooled=pooled, classes=2
        )

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        logits, follows = self._outputs(model, batch, None)
        sums = _sums(logits, batch["predict_labels"], batch["predict_weights"], "")
        if follows is not None:
            sums |= _sums(follows, batch["follows"], batch["example_weights"], "next_sentence_")
        return Outputs(sums)

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss (the sum of both, where there are two); perplexity and accuracy of masked tokens; of next sentences."""
        weight = max(sums["weight"], 1.0)
        loss = sums["loss"] / weight
        metrics: Metrics = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": sums["right"] / weight,
            "masked_tokens": int(sums["weight"]),
            "examples": len(examples),
        }
        if self.next_sentence:
            pairs = max(sums["next_sentence_weight"], 1.0)
            metrics["next_sentence_accuracy"] = sums["next_sentence_right"] / pairs
            metrics["loss"] += sums["next_sentence_loss"] / pairs
        return metrics

    def description(self) -> str:
        return "Predicts masked words: an encoder to be fine-tuned."


def _sums(logits: jax.Array, labels: jax.Array, weights: jax.Array, prefix: str) -> dict[str, jax.Array]:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = (jnp.argmax(logits, -1) == labels) * weights
    return {
        f"{prefix}loss": (losses * weights).sum(),
        f"{prefix}right": right.sum(),
        f"{prefix}weight": weights.sum(),
    }
