"""Joint intent classification and slot filling: what an utterance is meant to do, and the words that fill its slots."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import Stage
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.tags import guesses_as_iob2, in_usual_form
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForIntentAndSlots, IntentAndSlotsOutput
from jaxlm.models.weights import is_writer
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, model_inputs
from jaxlm.tasks.classification import in_order, listing
from jaxlm.tasks.entity_scores import accuracy, entity_scores
from jaxlm.tasks.token_classification import (
    UNLABELLED,
    TokenClassification,
    best,
    cross_entropy,
    labelled,
    loss_and_weight,
    tags_of,
)
from jaxlm.training.flops import train_flops


class IntentAndSlots(TokenClassification):
    """`BertForIntentAndSlots`: the loss is that of the slots plus `tags.intent_weight` times that of the intents.

    An intent, like a tag, that never occurs in train is one that the model cannot give: it takes no part in the loss
    and counts as an error. The intent of a sentence of several windows is read from, and learnt by, the first.
    """

    name = "intent_slots"
    model_class = BertForIntentAndSlots
    metrics_to_judge_by = ("frame_accuracy", "slot_f1", "intent_accuracy", "loss")
    intents = True

    def __init__(
        self, stage: Stage, tokenizer: TextTokenizer, tags: list[str], names: list[str], overlap: float | None = None
    ):
        super().__init__(stage, tokenizer, tags, overlap)
        self.intent_names = names

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        found = set(train.labels or [])
        if len(found) < 2:
            raise UserError(f"{train.source}: intent_slots needs at least two intents; there is only {found.pop()!r}")
        own = list(shape.id2intent.values())
        names = own if found <= set(own) and not stage.model.new_head else in_order(found)
        return cls(stage, tokenizer, tags_of(train, shape, new_head=stage.model.new_head), names)

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        tags, names = in_usual_form(config.id2label.values()), list(config.id2intent.values())
        task = cls(stage, tokenizer, tags, names, config.facts.get("overlap"))
        task.foreign = "task" not in config.facts
        return task

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(super().configure(config), id2intent=dict(enumerate(self.intent_names)))

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        examples, truncated = super().examples(table, training=training)
        intents = np.full(len(examples), UNLABELLED, np.int32)
        if table.labels is None:
            return dataclasses.replace(examples, targets={"intents": intents}), truncated
        numbers = {name: number + 1 for number, name in enumerate(self.intent_names)}
        intents[_first_windows(examples)] = [numbers.get(name, UNLABELLED) for name in table.labels]
        if not intents.any():
            raise UserError(
                f"{table.source}: the model knows none of its intents; it knows {listing(self.intent_names)}"
            )
        remarks = examples.remarks
        if unknown := set(table.labels) - set(numbers):
            remarks = (*remarks, f"intents unknown to the model, counted as errors: {listing(sorted(unknown), 5)}")
        return dataclasses.replace(examples, targets={"intents": intents}, remarks=remarks), truncated

    def _outputs(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> IntentAndSlotsOutput:
        return model(**model_inputs(batch), pool_positions=batch["pool_positions"], dropout_key=dropout_key)

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        return jnp.stack([labelled(batch["tags"]).sum(), labelled(batch["intents"]).sum()])

    @property
    def loss_names(self) -> tuple[str, ...]:
        return ("slots", "intents")

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        """Of the slots, and of the intents."""
        intents, slots = self._outputs(model, batch, dropout_key)
        smoothing = self.stage.train.label_smoothing
        of_intents = cross_entropy(intents, batch["intents"], smoothing).sum() * self.stage.tags.intent_weight
        return jnp.stack([cross_entropy(slots, batch["tags"], smoothing).sum(), of_intents])

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        return train_flops(
            config, tokens=tokens, row_length=row_length, scored=tokens, token_classes=len(self.tags), pooled=examples,
            classes=len(self.intent_names),
        )  # fmt: skip

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        intents, slots = self._outputs(model, batch, None)
        sums = loss_and_weight(slots, batch["tags"], "tag_") | loss_and_weight(intents, batch["intents"], "intent_")
        return Outputs(sums=sums, by_token=best(slots, "tag"), by_example=best(intents, "intent"))

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """The losses; accuracy of intents; F1 of slots; and the share of sentences right in intent and every tag (the
        semantic frame accuracy of Goo et al. 2018). The table by type is that of the slots."""
        table = examples.records.table
        guess = self._tags_of_words(outputs, examples.records)[0]
        if self.foreign:
            guess = guesses_as_iob2(guess)
        intents = self._intents(outputs, examples)[0]
        right = np.array([one == other for one, other in zip(table.labels, intents, strict=True)])
        whole = np.array([one == other for one, other in zip(table.tags, guess, strict=True)])
        overall, by_type = entity_scores(table.tags, guess)
        slot_loss = sums["tag_loss"] / max(sums["tag_weight"], 1.0)
        intent_loss = sums["intent_loss"] / max(sums["intent_weight"], 1.0)
        metrics: Metrics = {
            "loss": slot_loss + self.stage.tags.intent_weight * intent_loss,
            "intent_loss": intent_loss,
            "intent_accuracy": float(right.mean()),
            "slot_loss": slot_loss,
            "slot_accuracy": accuracy(table.tags, guess),
            **{f"slot_{name}": value for name, value in overall.items()},
            "frame_accuracy": float((right & whole).mean()),
            "examples": len(table),
        }
        return metrics | ({"per_class": by_type} if by_type else {})

    def _intents(self, outputs: dict[str, np.ndarray], examples: Examples) -> tuple[list[str], list[float]]:
        """Of each sentence the intent, and its probability."""
        first = _first_windows(examples)
        numbers, probabilities = outputs["intent"][first].tolist(), outputs["intent_probability"][first].tolist()
        return [self.intent_names[number] for number in numbers], probabilities

    def predictions(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[dict[str, Any]]:
        """`{"intent": "atis_flight", "probability": 0.99, "slots": [...], "words": [...], "tags": [...]}`; a slot is
        what an entity of `TokenClassification` is."""
        of_sentences = zip(*self._intents(outputs, examples), super().predictions(outputs, examples), strict=True)
        for intent, probability, found in of_sentences:
            slots = found.pop("entities")
            yield {"intent": intent, "probability": probability, "slots": slots, **found}

    def summary(self, prediction: dict[str, Any]) -> str:
        slots = super().summary({"entities": prediction["slots"]})
        return f"{prediction['intent']} ({prediction['probability']:.2f}): {slots}"

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        truth, slots = (table.labels or [])[row], super().verdict(prediction, table, row)
        if prediction["intent"] == truth:
            return slots
        return f"it is {truth}" + ("" if slots == "right" else f", {slots}")

    def save(self, directory: Path, config: BertConfig, params: Any) -> None:
        """Both halves, which `BertForIntentAndSlots` writes into directories of their own, get the tokenizer, too."""
        if is_writer(params):
            for half in ("intent", "slots"):
                self.tokenizer.save(directory / half, max_length=self.stage.data.max_length)
        super().save(directory, config, params)

    def description(self) -> str:
        return (
            f"Tells which of {len(self.intent_names)} intents an utterance has ({listing(self.intent_names)}), and "
            f"which words fill its slots ({len(self.tags)} tags)."
        )

    def usage(self) -> str:
        return """from transformers import pipeline

intent = pipeline("text-classification", "PATH_OF_THIS_DIRECTORY/intent")
slots = pipeline("token-classification", "PATH_OF_THIS_DIRECTORY/slots", aggregation_strategy="first")
print(intent("A sentence."), slots("A sentence."))"""


def _first_windows(examples: Examples) -> np.ndarray:
    """The first window of each sentence, `[sentences]`."""
    return np.unique(np.asarray(examples.record), return_index=True)[1]
