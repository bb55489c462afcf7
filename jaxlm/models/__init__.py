"""BERT in Flax NNX. This package imports jax, flax and numpy, and nothing else of jaxlm."""

from jaxlm.models.bert import BertModel, BertOutput
from jaxlm.models.config import BertConfig, CheckpointError
from jaxlm.models.heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    MaskedLMOutput,
    PreTrainingOutput,
    SequenceClassifierOutput,
)

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertModel",
    "BertOutput",
    "CheckpointError",
    "MaskedLMOutput",
    "PreTrainingOutput",
    "SequenceClassifierOutput",
]
