"""How many floating-point operations a step is worth, and which share of the hardware's peak it reaches."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxlm.models.config import BertConfig
from jaxlm.parallel.chips import peak_flops


def train_flops(
    config: BertConfig,
    *,
    tokens: float,
    row_length: float,
    predictions: float = 0,
    pooled: float = 0,
    scored: float = 0,
    classes: int = 0,
) -> float:
    """Model FLOPs of a training step: three times those of a forward pass, which are its matrix products.

    The backward pass has two products for each of the forward pass, the gradients of both factors. A multiply-add is 2
    FLOPs. With width `h`, feed-forward width `i`, rows of `L` tokens and a vocabulary of `V`, the forward pass is worth
    (Narayanan et al. 2021, Megatron-LM, appendix; Chowdhery et al. 2022, PaLM, appendix B)

        query, key, value, output       8 h^2               a token and layer
        scores, and their mixture       4 L h               a token and layer: every key of the row, masked or not
        feed-forward                    4 h i               a token and layer
        masked-language-model head      2 h^2 + 2 h V       a prediction
        pooler and classifier           2 h^2 + 2 h classes   a pooled example
        classifier of tokens            2 h classes         a scored token

    but for the last layer: it computes keys and values (4 h^2) for all tokens, and the rest only for those that a head
    reads (`BertModel.encode`). Only that is counted, which is less than the papers' formula gives. Not counted are
    embeddings, LayerNorm, softmax and activations; padding, be it tokens, places for predictions or slots for
    examples, although it is computed; and what the backward pass computes again to save memory.

    Args:
      tokens: real tokens of the step; predictions and pooled examples are real ones too.
      row_length: tokens of a row with padding, that is the keys that a token is compared with.
      predictions: tokens that the masked-language-model head predicts.
      pooled: examples whose first token a classifier reads, or next-sentence prediction.
      scored: tokens whose own hidden state a classifier reads.
      classes: outputs of that classifier; 2 for next-sentence prediction.
    """
    h, layers = config.hidden_size, config.num_hidden_layers
    queries = tokens * (layers - 1) + predictions + pooled + scored
    forward = (
        tokens * layers * 4 * h**2
        + queries * (4 * h**2 + 4 * row_length * h + 4 * h * config.intermediate_size)
        + predictions * (2 * h**2 + 2 * h * config.vocab_size)
        + pooled * (2 * h**2 + 2 * h * classes)
        + scored * 2 * h * classes
    )
    return 3 * forward


def model_flops_utilization(
    flops_per_second: float, devices: np.ndarray | np.flatiter | Sequence[jax.Device], dtype: Any
) -> float | None:
    """MFU (Chowdhery et al. 2022, appendix B): the model's FLOPs as a share of the devices' peak.

    Args:
      flops_per_second: model FLOPs (`train_flops`) of all devices together, divided by seconds.
      devices: all devices that compute, e.g. `mesh.devices`; at least one.
      dtype: compute dtype.

    Returns:
      Between 0 and 1; None where `peak_flops` does not know a device's peak.
    """
    total = 0.0
    for device in np.ravel(devices):  # a flatiter (`mesh.devices.flat`) could be walked only once
        if (peak := peak_flops(device.device_kind, dtype)) is None:
            return None
        total += peak
    return flops_per_second / total
