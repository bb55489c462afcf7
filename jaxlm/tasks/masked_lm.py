"""Masked language modelling: pre-training on plain text."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config import Stage
from jaxlm.data.loader import Batch, Examples
from jaxlm.data.masking import mask_tokens, most_predictions
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertForMaskedLM
from jaxlm.tasks.base import DeviceBatch, Metrics, Task


class MaskedLM(Task):
    """`BertForMaskedLM`; documents are cut into windows, and no two documents see each other."""

    model_class = BertForMaskedLM
    labelled = False
    metric = "loss"
    larger_is_better = False

    def __init__(self, stage: Stage, tokenizer: TextTokenizer):
        super().__init__(stage, tokenizer)

    def examples(self, table: Table) -> tuple[Examples, int]:
        """Windows of at most `max_length` tokens, [CLS] and [SEP] included; nothing is cut away."""
        room = self.stage.data.max_length - 2
        first, last = self.tokenizer.special_ids["cls"], self.tokenizer.special_ids["sep"]
        windows: list[list[int]] = []
        places: list[str] = []
        for ids, place in zip(self.tokenizer.tokenize(table.texts), table.places, strict=True):
            for start in range(0, len(ids), room):
                windows.append([first, *ids[start : start + room], last])
                places.append(place)
        if not windows:
            raise UserError(f"{table.source}: no text")
        offsets = np.zeros(len(windows) + 1, np.int64)
        np.cumsum([len(window) for window in windows], out=offsets[1:])
        tokens = np.concatenate([np.array(window, np.int32) for window in windows])
        return Examples(tokens, np.zeros(len(tokens), np.int8), offsets, {}, places, table.source), 0

    def finish(self, batch: Batch, seed: int, step: int) -> Batch:
        rate = self.stage.train.mask_rate
        slots = batch.pop("slot_examples").shape[1]
        for unused in ("pool_positions", "example_weights"):
            del batch[unused]
        return mask_tokens(
            batch,
            seed=seed,
            step=step,
            rate=rate,
            predictions=most_predictions(batch["input_ids"].shape[1], slots, rate),
            vocab_size=self.tokenizer.vocab_size,
            special_ids=self.tokenizer.special_ids,
        )

    def _losses(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        logits = model(
            batch["input_ids"],
            token_type_ids=batch["token_type_ids"],
            position_ids=batch["positions"],
            segment_ids=batch["segment_ids"],
            predict_positions=batch["predict_positions"],
            example_ids=batch["example_ids"],
            dropout_key=dropout_key,
        ).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["predict_labels"]), logits

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        losses, _ = self._losses(model, batch, dropout_key)
        weights = batch["predict_weights"]
        return (losses * weights).sum(), weights.sum()

    def evaluation_sums(self, model: Any, batch: DeviceBatch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        losses, logits = self._losses(model, batch, None)
        weights = batch["predict_weights"]
        right = (jnp.argmax(logits, -1) == batch["predict_labels"]) * weights
        return {"loss": (losses * weights).sum(), "right": right.sum(), "weight": weights.sum()}, {}

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss a masked token, perplexity, masked accuracy."""
        weight = max(sums["weight"], 1.0)
        loss = sums["loss"] / weight
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": sums["right"] / weight,
            "masked_tokens": int(sums["weight"]),
            "examples": len(examples),
        }

    def description(self) -> str:
        return "Predicts masked words: an encoder to be fine-tuned."
