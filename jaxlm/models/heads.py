"""Output heads: what a BERT is trained and used for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.models.attention import gather_tokens
from jaxlm.models.bert import ACTIVATION_FUNCTIONS, BertModel, Inputs, LayerNorm, Linear
from jaxlm.models.config import BertConfig
from jaxlm.models.dropout import dropout_tokens
from jaxlm.models.hub import PretrainedModel
from jaxlm.models.placement import place, place_rows
from jaxlm.models.products import decoder_cross_entropy, precision_of
from jaxlm.models.vocabulary import split_vocabulary


class MlmHead(nnx.Module):
    """Predicts tokens: a transform, then the word embeddings themselves as the decoder (tied), plus a bias."""

    def __init__(self, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.transform = Linear(config.hidden_size, config.hidden_size, config, dtype, rngs)
        self.norm = LayerNorm(config, dtype)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size, jnp.float32))
        self.activation = config.hidden_act
        self.dtype = dtype

    def _features(self, hidden: jax.Array) -> jax.Array:
        return self.norm(ACTIVATION_FUNCTIONS[self.activation](self.transform(hidden)))

    def losses(self, hidden: jax.Array, word_embeddings: jax.Array, labels: jax.Array) -> jax.Array:
        """The cross-entropy of each token with its label, float32 `[rows, n]`: what training needs of the logits."""
        return decoder_cross_entropy(self._features(hidden), word_embeddings, self.bias[...], labels)

    def __call__(self, hidden: jax.Array, word_embeddings: jax.Array) -> jax.Array:
        """`hidden [..., hidden]` to float32 logits `[..., vocabulary]`."""
        x = self._features(hidden)
        words = split_vocabulary(word_embeddings.astype(self.dtype))
        asked = {"precision": precision_of(x), "preferred_element_type": jnp.float32}
        logits = jnp.einsum("...h,vh->...v", x, words, **asked)
        return place_rows(logits, "tensor") + place(self.bias[...], "tensor")


def first_tokens(inputs: Inputs, pool_positions: jax.Array | None) -> jax.Array:
    """Where the first token of each example lies, `[rows, n]`: as given, or one example a row, at its start."""
    return jnp.zeros((inputs.input_ids.shape[0], 1), jnp.int32) if pool_positions is None else pool_positions


def classifier_rate(config: BertConfig) -> float:
    """The dropout rate in front of a classifier."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


class MaskedLMOutput(NamedTuple):
    logits: jax.Array  # [rows, length, vocabulary], or [rows, n, vocabulary] with predict_positions


class MaskedLMLosses(NamedTuple):
    losses: jax.Array  # [rows, n]: the cross-entropy of each label


class PreTrainingOutput(NamedTuple):
    prediction_logits: jax.Array  # as MaskedLMOutput.logits
    seq_relationship_logits: jax.Array  # [rows, 2] or [rows, n, 2]; index 0: the second text follows the first


class PreTrainingLosses(NamedTuple):
    prediction_losses: jax.Array  # as MaskedLMLosses.losses
    seq_relationship_logits: jax.Array  # as PreTrainingOutput's


class SequenceClassifierOutput(NamedTuple):
    logits: jax.Array  # [rows, labels], or [rows, n, labels] with pool_positions


class TokenClassifierOutput(NamedTuple):
    logits: jax.Array  # [rows, length, labels]


class QuestionAnsweringOutput(NamedTuple):
    start_logits: jax.Array  # [rows, length]
    end_logits: jax.Array  # [rows, length]


class BertForMaskedLM(PretrainedModel):
    """BERT with the masked-language-model head. `BertModel` documents the arguments that all models share."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, with_pooler=False, dtype=dtype, rngs=rngs)
        self.mlm = MlmHead(config, dtype, rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        predict_positions: jax.Array | None = None,
        predict_labels: jax.Array | None = None,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> MaskedLMOutput | MaskedLMLosses:
        """`predict_positions [rows, n]`: compute logits for these tokens only (the head is a fifth of the cost).

        `predict_labels [rows, n]`: compute the losses of these tokens instead of their logits.
        """
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        hidden = self.bert.encode(inputs, predict_positions)
        words = self.bert.embeddings.word[...]
        if predict_labels is not None:
            return MaskedLMLosses(self.mlm.losses(hidden, words, predict_labels))
        return MaskedLMOutput(self.mlm(hidden, words))


class BertForPreTraining(PretrainedModel):
    """BERT with both heads of its first pre-training: masked tokens, and whether one text follows the other."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, dtype=dtype, rngs=rngs)
        self.mlm = MlmHead(config, dtype, rngs)
        self.next_sentence = Linear(config.hidden_size, 2, config, jnp.float32, rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        pool_positions: jax.Array | None = None,
        predict_positions: jax.Array | None = None,
        predict_labels: jax.Array | None = None,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> PreTrainingOutput | PreTrainingLosses:
        """See `BertModel` for the inputs and `BertForMaskedLM` for `predict_positions` and `predict_labels`."""
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        first = first_tokens(inputs, pool_positions)
        if predict_positions is None:
            hidden = self.bert.encode(inputs)
            pooled, predicted = gather_tokens(hidden, first), hidden
        else:
            hidden = self.bert.encode(inputs, jnp.concatenate([first, predict_positions], axis=1))
            pooled, predicted = hidden[:, : first.shape[1]], hidden[:, first.shape[1] :]
        follows = self.next_sentence(self.bert.pool(pooled))
        follows = follows[:, 0] if pool_positions is None else follows
        words = self.bert.embeddings.word[...]
        if predict_labels is not None:
            return PreTrainingLosses(self.mlm.losses(predicted, words, predict_labels), follows)
        return PreTrainingOutput(self.mlm(predicted, words), follows)


class BertForSequenceClassification(PretrainedModel):
    """BERT with a classifier over whole texts or pairs; `config.id2label` says how many classes there are."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, dtype=dtype, rngs=rngs)
        self.classifier = Linear(config.hidden_size, config.num_labels, config, jnp.float32, rngs)

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
    ) -> SequenceClassifierOutput:
        """See `BertModel` for the arguments; logits are computed and returned in float32."""
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        first = first_tokens(inputs, pool_positions)
        pooled = self.bert.pool(self.bert.encode(inputs, first))
        if inputs.sites is not None:
            site = inputs.sites.site(self.config.num_hidden_layers, 1).at(first)
            pooled = dropout_tokens(pooled, classifier_rate(self.config), site)
        logits = self.classifier(pooled)
        return SequenceClassifierOutput(logits[:, 0] if pool_positions is None else logits)


class BertForTokenClassification(PretrainedModel):
    """BERT with a classifier over every token; `config.id2label` says how many classes there are."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, with_pooler=False, dtype=dtype, rngs=rngs)
        self.classifier = Linear(config.hidden_size, config.num_labels, config, jnp.float32, rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> TokenClassifierOutput:
        """See `BertModel` for the arguments; logits are computed and returned in float32."""
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        hidden = self.bert.encode(inputs)
        if inputs.sites is not None:
            site = inputs.sites.site(self.config.num_hidden_layers, 1)
            hidden = dropout_tokens(hidden, classifier_rate(self.config), site)
        return TokenClassifierOutput(self.classifier(hidden))


class BertForQuestionAnswering(PretrainedModel):
    """BERT that scores every token as the start and as the end of the answer (Devlin et al. 2019, section 4.2)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.bert = BertModel(config, with_pooler=False, dtype=dtype, rngs=rngs)
        self.qa_outputs = Linear(config.hidden_size, 2, config, jnp.float32, rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        position_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        *,
        example_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> QuestionAnsweringOutput:
        """See `BertModel` for the arguments; logits are computed and returned in float32."""
        inputs = Inputs.fill(self.config, input_ids, attention_mask, token_type_ids,
                             position_ids, segment_ids, example_ids, dropout_key)  # fmt: skip
        logits = self.qa_outputs(self.bert.encode(inputs))
        return QuestionAnsweringOutput(logits[..., 0], logits[..., 1])
