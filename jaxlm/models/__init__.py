"""BERT in Flax NNX. This package imports jax, flax and numpy, and nothing else of jaxlm."""

from jaxlm.models.bert import BertModel, BertOutput
from jaxlm.models.config import BertConfig, CheckpointError, Pooling
from jaxlm.models.embedding import SentenceEncoder, SentenceEncoderOutput
from jaxlm.models.heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    MaskedLMLosses,
    MaskedLMOutput,
    PreTrainingLosses,
    PreTrainingOutput,
    QuestionAnsweringOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from jaxlm.models.intent_slots import BertForIntentAndSlots, IntentAndSlotsOutput
from jaxlm.models.multi_task import MultiTaskBert

__all__ = [
    "BertConfig",
    "BertForIntentAndSlots",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertOutput",
    "CheckpointError",
    "IntentAndSlotsOutput",
    "MaskedLMLosses",
    "MaskedLMOutput",
    "MultiTaskBert",
    "Pooling",
    "PreTrainingLosses",
    "PreTrainingOutput",
    "QuestionAnsweringOutput",
    "SentenceEncoder",
    "SentenceEncoderOutput",
    "SequenceClassifierOutput",
    "TokenClassifierOutput",
]
