"""Masked language modelling, with or without next-sentence prediction: pre-training on plain text."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlm.config import DataSettings, Stage
from jaxlm.data.columns import NOTHING, Known
from jaxlm.data.loader import Batch, Examples
from jaxlm.data.masking import mask_tokens, most_predictions
from jaxlm.data.rows import specials
from jaxlm.data.sources import Problems, Table, read_table
from jaxlm.data.tokenizer import Encoded, TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForMaskedLM, BertForPreTraining
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, Task, model_inputs
from jaxlm.training.flops import train_flops


class MaskedLM(Task):
    """`BertForMaskedLM`, or `BertForPreTraining`; documents are cut into windows, and no two see each other.

    Its predictions are the likeliest tokens for each [MASK] of a text.
    """

    name = "masked_lm"
    model_class: type[BertForMaskedLM] | type[BertForPreTraining] = BertForMaskedLM
    label_kind = None
    metrics_to_judge_by = ("loss", "accuracy")
    top_k = 5  # tokens that a prediction names

    def __init__(self, stage: Stage, tokenizer: TextTokenizer):
        super().__init__(stage, tokenizer)
        self.next_sentence = stage.objective.next_sentence
        self.model_class = BertForPreTraining if self.next_sentence else BertForMaskedLM

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known: Known = NOTHING
    ) -> Table:
        if not labelled:  # texts with masks, a line each
            settings = dataclasses.replace(settings, documents="line")
        return read_table(spec, split, settings, label_kind=None, running_text=True, by_split=labelled, known=known)

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

    def to_predict(self, table: Table) -> Table:
        """The rows that have a [MASK] and that the model reads whole; others stop, or are counted in `skipped`.

        Raises:
          UserError: of another row, where `data.bad_rows` says so; or there is none but others.
        """
        problems = Problems(table.source, self.stage.data.bad_rows)
        unfit = self._unfit(table, self._encoded(table))
        for row, problem in unfit.items():
            problems.report_at(table.places[row], problem, f": {table.texts[row][:60]!r}")
        if len(unfit) == len(table):
            raise UserError(f"{table.source}: no usable row ({problems.counts})")
        problems.tell("rows")
        for problem, count in problems.counts.items():
            table.skipped[problem] = table.skipped.get(problem, 0) + count
        return table.choose([row for row in range(len(table)) if row not in unfit])

    def _encoded(self, table: Table) -> Encoded:
        """Whole texts or pairs, or one token more than the model reads, which shows that they are too long."""
        return self.tokenizer.encode(table.texts, table.pairs, max_length=self.stage.data.max_length + 1)

    def _unfit(self, table: Table, encoded: Encoded) -> dict[int, str]:
        """The rows that cannot be predicted, and why."""
        longest, mask = self.stage.data.max_length, self.tokenizer.special_ids["mask"]
        lengths = np.diff(encoded.offsets)
        masked = np.bincount(np.repeat(np.arange(len(table)), lengths)[encoded.input_ids == mask], minlength=len(table))
        without = f"there is no {self.tokenizer.token(mask)} in the text"
        unfit = dict.fromkeys(np.flatnonzero(masked == 0).tolist(), without)
        too_long = f"the text has more than the {longest} tokens that the model reads"
        return dict(sorted((unfit | dict.fromkeys(np.flatnonzero(lengths > longest).tolist(), too_long)).items()))

    def examples_to_predict(self, table: Table) -> tuple[Examples, int]:
        """Whole texts or pairs, with `mask_offsets [examples, most]`: where each [MASK] lies, -1 for none.

        Raises:
          UserError: a text has no [MASK], or is longer than the model reads.
        """
        encoded = self._encoded(table)
        for row, problem in self._unfit(table, encoded).items():
            raise UserError(f"{table.source}, {table.places[row]}: {problem}: {table.texts[row][:60]!r}")
        masked = np.flatnonzero(encoded.input_ids == self.tokenizer.special_ids["mask"])
        example = np.searchsorted(encoded.offsets, masked, side="right") - 1
        counts = np.bincount(example, minlength=len(table))
        offsets = np.full((len(table), counts.max()), -1, np.int32)
        offsets[example, np.arange(len(masked)) - (np.cumsum(counts) - counts)[example]] = (
            masked - encoded.offsets[example]
        )
        return Examples(
            encoded.input_ids, encoded.token_type_ids, encoded.offsets, {"mask_offsets": offsets}, table.places,
            table.source, records=table,
        ), 0  # fmt: skip

    def finish(self, batch: Batch, seed: int, step: int) -> Batch:
        if "mask_offsets" in batch:
            return batch
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
            predictions=most_predictions(batch["input_ids"].shape[1], slots, objective, specials(self.next_sentence)),
            vocabulary=self.tokenizer.vocabulary,
        )

    def _outputs(
        self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None, labels: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Logits of the masked tokens, or with `labels` their losses; and logits of what follows (None without
        next-sentence prediction)."""
        predict = {"predict_positions": batch["predict_positions"], "predict_labels": labels}
        inputs = model_inputs(batch) | predict | {"dropout_key": dropout_key}
        if not self.next_sentence:
            output = model(**inputs)
            return output.logits if labels is None else output.losses, None
        output = model(**inputs, pool_positions=batch["pool_positions"])
        predicted = output.prediction_logits if labels is None else output.prediction_losses
        return predicted, output.seq_relationship_logits

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        masked = batch["predict_weights"].sum()
        return jnp.stack([masked, batch["example_weights"].sum()]) if self.next_sentence else masked

    @property
    def loss_names(self) -> tuple[str, ...]:
        return ("masked_lm", "next_sentence") if self.next_sentence else ()

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        losses, follows = self._outputs(model, batch, dropout_key, batch["predict_labels"])
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
        if "mask_offsets" in batch:
            return Outputs(by_example=self._fill(model, batch))
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

    def _fill(self, model: Any, batch: DeviceBatch) -> dict[str, jax.Array]:
        """The `top_k` likeliest tokens of each mask, and their probabilities: `[rows, slots, most, top_k]`."""
        offsets = batch["mask_offsets"]
        places = (batch["pool_positions"][..., None] + jnp.maximum(offsets, 0)).reshape(len(offsets), -1)
        logits, _ = self._outputs(model, batch | {"predict_positions": places}, None)
        shape = (*offsets.shape, -1)
        probabilities, tokens = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), min(self.top_k, logits.shape[-1]))
        return {"probabilities": probabilities.reshape(shape), "tokens": tokens.reshape(shape)}

    def predictions(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[dict[str, Any]]:
        """`{"text": "Paris is the [MASK].", "masks": [[{"token": "capital", "probability": 0.99}, ...], ...]}`, and
        `text_pair`, whose masks come after the text's, of pairs."""
        counts = (examples.targets["mask_offsets"] >= 0).sum(1)
        pairs = examples.records.pairs
        for row, text in enumerate(examples.records.texts):
            texts = {"text": text} if pairs is None else {"text": text, "text_pair": pairs[row]}
            yield texts | {
                "masks": [
                    [
                        {"token": self.tokenizer.token(int(token)), "probability": float(probability)}
                        for token, probability in zip(
                            outputs["tokens"][row, mask], outputs["probabilities"][row, mask], strict=True
                        )
                    ]
                    for mask in range(counts[row])
                ],
            }

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
