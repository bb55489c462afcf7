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
    MaskedLMOutput,
    PreTrainingOutput,
    QuestionAnsweringOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertOutput",
    "CheckpointError",
    "MaskedLMOutput",
    "Pooling",
    "PreTrainingOutput",
    "QuestionAnsweringOutput",
    "SentenceEncoder",
    "SentenceEncoderOutput",
    "SequenceClassifierOutput",
    "TokenClassifierOutput",
]
