"""One encoder with two heads: what an utterance is meant to do, and which of its words fill which slots."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.models.attention import gather_tokens
from jaxlm.models.bert import BertModel, Inputs, Linear
from jaxlm.models.config import BertConfig
from jaxlm.models.dropout import dropout_tokens
from jaxlm.models.heads import (
    BertForSequenceClassification,
    BertForTokenClassification,
    classifier_rate,
    first_tokens,
)
from jaxlm.models.hub import PretrainedModel
from jaxlm.models.weights import MAX_SHARD_SIZE


class IntentAndSlotsOutput(NamedTuple):
    intent_logits: jax.Array  # [rows, intents], or [rows, n, intents] with pool_positions
    slot_logits: jax.Array  # [rows, length, slot tags]


class BertForIntentAndSlots(PretrainedModel):
    """BERT with a classifier over whole texts and one over every token (Chen et al. 2019, "BERT for Joint Intent
    Classification and Slot Filling", https://arxiv.org/abs/1902.10909, equations 1 and 2).

    `config.id2intent` names the intents, `config.id2label` the tags of slots. `transformers` has no such class, but one
    for each half: a saved directory holds them, too, as `intent/` and `slots/`.
    """

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, dtype=dtype, rngs=rngs)
        self.intent_classifier = Linear(config.hidden_size, len(config.id2intent), config, jnp.float32, rngs)
        self.slot_classifier = Linear(config.hidden_size, config.num_labels, config, jnp.float32, rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        pool_positions: jax.Array | None = None,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> IntentAndSlotsOutput:
        """See `BertModel` for the arguments; logits are computed and returned in float32."""
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        first = first_tokens(inputs, pool_positions)
        hidden = self.bert.encode(inputs)
        pooled = self.bert.pool(gather_tokens(hidden, first))
        if inputs.sites is not None:
            rate, last = classifier_rate(self.config), self.config.num_hidden_layers
            pooled = dropout_tokens(pooled, rate, inputs.sites.site(last, 1).at(first))
            hidden = dropout_tokens(hidden, rate, inputs.sites.site(last, 2))
        intents = self.intent_classifier(pooled)
        slots = self.slot_classifier(hidden)
        return IntentAndSlotsOutput(intents[:, 0] if pool_positions is None else intents, slots)

    @classmethod
    def save_params(
        cls,
        directory: str | os.PathLike,
        config: BertConfig,
        params: dict[str, Any],
        *,
        max_shard_size: int = MAX_SHARD_SIZE,
    ) -> None:
        bert, directory = params["bert"], Path(directory)
        without_pooler = {name: value for name, value in bert.items() if name != "pooler"}
        shape = dataclasses.replace(config, id2intent={}, facts={})
        BertForSequenceClassification.save_params(
            directory / "intent",
            dataclasses.replace(shape, id2label=config.id2intent, problem_type="single_label_classification"),
            {"bert": bert, "classifier": params["intent_classifier"]},
            max_shard_size=max_shard_size,
        )
        BertForTokenClassification.save_params(
            directory / "slots",
            shape,
            {"bert": without_pooler, "classifier": params["slot_classifier"]},
            max_shard_size=max_shard_size,
        )
        super().save_params(directory, config, params, max_shard_size=max_shard_size)
