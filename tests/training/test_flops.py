import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxlm.models import (
    BertConfig,
    BertForIntentAndSlots,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from jaxlm.parallel.chips import peak_flops
from jaxlm.training.flops import model_flops_utilization, train_flops

ROWS, LENGTH, PREDICTIONS, SLOTS = 4, 96, 14, 3
CONFIG = BertConfig(
    vocab_size=1000,
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=320,
    max_position_embeddings=LENGTH,
    hidden_act="relu",
    id2label=dict(enumerate("abcde")),
    id2intent={0: "ask", 1: "tell"},
)
POOLED_CLASSES = {BertForPreTraining: 2, BertForSequenceClassification: 5, BertForIntentAndSlots: 2}

Forward = Callable[[Any], jax.Array]  # parameters to a scalar


def _forward(model_class: Any) -> tuple[Forward, Any, dict[str, float]]:
    """A pass over full rows, its parameters' shapes, and what `train_flops` is to count."""
    draw = np.random.default_rng(0)
    ids = draw.integers(5, CONFIG.vocab_size, (ROWS, LENGTH)).astype(np.int32)
    inputs = {
        "segment_ids": np.sort(draw.integers(1, SLOTS + 1, (ROWS, LENGTH))).astype(np.int32),
        "position_ids": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ids.shape),
    }
    counts: dict[str, float] = {"tokens": ROWS * LENGTH, "row_length": LENGTH}
    if model_class in (BertForMaskedLM, BertForPreTraining):
        inputs["predict_positions"] = np.tile(np.arange(PREDICTIONS, dtype=np.int32), (ROWS, 1))
        counts["predictions"] = ROWS * PREDICTIONS
    if model_class in POOLED_CLASSES:
        inputs["pool_positions"] = np.tile(np.arange(SLOTS, dtype=np.int32), (ROWS, 1))
        counts |= {"pooled": ROWS * SLOTS, "classes": POOLED_CLASSES[model_class]}
    if model_class in (BertForTokenClassification, BertForIntentAndSlots, BertForQuestionAnswering):
        counts |= {"scored": ROWS * LENGTH, "token_classes": 2 if model_class is BertForQuestionAnswering else 5}
    graphdef, params = model_class.abstract(CONFIG)

    def forward(params: Any) -> jax.Array:
        outputs = nnx.merge(graphdef, params)(ids, **inputs)
        return sum((output.sum() for output in outputs), jnp.zeros(()))

    return forward, params, counts


def _products(jaxpr: Any) -> int:
    """FLOPs of all matrix products in a program, read off their shapes; a vector's, which adds rows up, is none."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general" and equation.invars[0].aval.ndim > 1:
            contracted = equation.params["dimension_numbers"][0][0]
            shared = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * shared * math.prod(equation.outvars[0].aval.shape)
        total += sum(_products(part) for part in jax.extend.core.jaxprs_in_params(equation.params))
    return total


# Token types are read by a product too: embeddings, which are not counted.
TOKEN_TYPES = 2 * ROWS * LENGTH * CONFIG.type_vocab_size * CONFIG.hidden_size
MODELS = [BertForMaskedLM, BertForPreTraining, BertForSequenceClassification]


@pytest.mark.parametrize(
    "model_class", [*MODELS, BertForTokenClassification, BertForIntentAndSlots, BertForQuestionAnswering]
)
def test_flops_are_those_of_the_models_products_forward_and_backward(model_class: Any) -> None:
    forward, params, counts = _forward(model_class)
    step = train_flops(CONFIG, **counts)
    assert _products(jax.make_jaxpr(forward)(params).jaxpr) == step / 3 + TOKEN_TYPES
    assert _products(jax.make_jaxpr(jax.grad(forward))(params).jaxpr) == step + 2 * TOKEN_TYPES


@pytest.mark.parametrize("model_class", MODELS)
def test_flops_are_nearly_what_xla_counts(model_class: Any) -> None:
    forward, params, counts = _forward(model_class)
    xla = jax.jit(forward).lower(params).compile().cost_analysis()["flops"]
    ours = train_flops(CONFIG, **counts) / 3
    assert ours < xla < 1.05 * ours  # XLA counts elementwise operations as well


def test_flops_of_bert_base_are_those_of_the_formula_written_out() -> None:
    flops = train_flops(BertConfig(), tokens=1000, row_length=512, predictions=150, pooled=10, classes=2)
    layer = 8 * 768**2 + 4 * 512 * 768 + 4 * 768 * 3072
    spared = (1000 - 160) * (4 * 768**2 + 4 * 512 * 768 + 4 * 768 * 3072)
    heads = 150 * 2 * 768 * (768 + 30522) + 10 * 2 * 768 * (768 + 2)
    assert flops == 3 * (1000 * 12 * layer - spared + heads)


def _devices(*kinds: str) -> list[Any]:
    return [SimpleNamespace(device_kind=kind) for kind in kinds]


def test_utilization_is_the_share_of_all_devices_peak() -> None:
    assert model_flops_utilization(275e12, _devices("TPU v4", "TPU v4"), jnp.bfloat16) == 0.5
    assert model_flops_utilization(312e12 / 4, _devices("NVIDIA A100-SXM4-40GB"), "bfloat16") == 0.25


def test_utilization_takes_a_meshs_devices_and_can_be_asked_for_again() -> None:
    devices = np.array(_devices("TPU v4", "TPU v4"), object).reshape(2, 1, 1)
    for given in (devices, devices.flat):
        assert [model_flops_utilization(55e12, given, jnp.bfloat16) for _ in range(2)] == [0.1, 0.1]


def test_utilization_is_not_told_where_a_peak_is_unknown() -> None:
    assert model_flops_utilization(1e12, jax.devices(), jnp.bfloat16) is None
    assert model_flops_utilization(1e12, _devices("TPU v4", "TPU v99"), jnp.bfloat16) is None
    assert model_flops_utilization(1e12, _devices("TPU v4"), jnp.float32) is None


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5", "bfloat16", 459e12),
        ("TPU v5", "float16", None),
        ("NVIDIA H200", "bfloat16", 989.5e12),
        ("NVIDIA H200", "float16", 989.5e12),
        ("NVIDIA H200", "float32", None),
        ("NVIDIA H200 MIG 1g.18gb", "bfloat16", None),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362.05e12),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA A10G", "bfloat16", 70e12),
        ("Tesla V100-SXM2-16GB", "float16", 125e12),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("cpu", "bfloat16", None),
    ],
)
def test_peaks_are_those_of_the_chip_and_dtype(kind: str, dtype: str, peak: float | None) -> None:
    assert peak_flops(kind, dtype) == peak
