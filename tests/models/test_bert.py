"""The encoder computes what transformers' does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from jaxlm.models import BertForMaskedLM, BertModel
from jaxlm.models.bert import ACTIVATION_FUNCTIONS, LayerNorm, sinusoids

from .conftest import Checkpoints
from .reference import SHAPES, batch, flat_params, outputs, quick_jit, relative_error, torch_model, torch_outputs


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_and_pooled_output_equal_transformers(shape: str, checkpoints: Checkpoints) -> None:
    for arrays in (batch(shape, padded=False), batch(shape, padded=True)):
        found = outputs(checkpoints.model("BertModel", shape), **arrays)
        expected = torch_outputs(torch_model("BertModel", shape), arrays)
        np.testing.assert_allclose(found.last_hidden_state, expected["last_hidden_state"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.pooler_output, expected["pooler_output"], atol=1e-4, rtol=0)


def test_defaults_are_one_unpadded_text_a_row_of_token_type_0(checkpoints: Checkpoints) -> None:
    input_ids = batch("erf", padded=False)["input_ids"]
    found = outputs(checkpoints.model("BertModel"), input_ids=input_ids)
    expected = torch_outputs(torch_model("BertModel", "erf"), {"input_ids": input_ids})
    np.testing.assert_allclose(found.last_hidden_state, expected["last_hidden_state"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.pooler_output, expected["pooler_output"], atol=1e-4, rtol=0)


def test_position_ids_choose_the_position_embeddings(checkpoints: Checkpoints) -> None:
    arrays = batch("erf", padded=True) | {"position_ids": np.random.default_rng(1).integers(0, 24, (3, 12))}
    found = outputs(checkpoints.model("BertModel"), **arrays)
    expected = torch_outputs(torch_model("BertModel", "erf"), arrays)
    np.testing.assert_allclose(found.last_hidden_state, expected["last_hidden_state"], atol=1e-4, rtol=0)


def test_a_boolean_attention_mask_means_the_same_as_an_integer_one(checkpoints: Checkpoints) -> None:
    model, arrays = checkpoints.model("BertModel"), batch("erf", padded=True)
    integer = outputs(model, **arrays)
    boolean = outputs(model, **arrays | {"attention_mask": arrays["attention_mask"] == 1})
    np.testing.assert_array_equal(boolean.last_hidden_state, integer.last_hidden_state)


def test_padding_does_not_change_a_token(checkpoints: Checkpoints) -> None:
    model, arrays = checkpoints.model("BertModel"), batch("erf", padded=True)
    padded = outputs(model, **arrays)
    alone = outputs(model, **{name: array[1:2, :7] for name, array in arrays.items()})
    assert relative_error(padded.last_hidden_state[1:2, :7], alone.last_hidden_state) < 1e-5
    assert relative_error(padded.pooler_output[1:2], alone.pooler_output) < 1e-5


def test_a_row_of_padding_alone_stays_finite(checkpoints: Checkpoints) -> None:
    arrays = batch("erf", padded=True) | {"attention_mask": np.zeros((3, 12), int)}
    found = outputs(checkpoints.model("BertModel"), **arrays)
    assert np.isfinite(found.last_hidden_state).all()


def test_bfloat16_compute_differs_from_float32_by_less_than_2_percent_rms(checkpoints: Checkpoints) -> None:
    arrays = batch("erf", padded=False)
    exact = outputs(checkpoints.model("BertModel"), **arrays)
    rounded = outputs(checkpoints.model("BertModel", dtype=jnp.bfloat16), **arrays)
    for found, expected in zip(rounded, exact, strict=True):
        assert found.dtype == jnp.bfloat16
        difference = np.asarray(found, np.float32) - expected
        assert 1e-4 < np.linalg.norm(difference) / np.linalg.norm(expected) < 2e-2


def test_logits_are_float32_though_products_are_bfloat16(checkpoints: Checkpoints) -> None:
    arrays = batch("erf", padded=False)
    for name in ("BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering"):
        for logits in outputs(checkpoints.model(name, dtype=jnp.bfloat16), **arrays):
            assert logits.dtype == jnp.float32
            assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.9, name


@pytest.mark.parametrize("name", ["gelu", "gelu_new"])
def test_an_activation_and_its_gradient_are_rounded_to_bfloat16_once(name: str) -> None:
    """Where the GELU is small, 1 + erf has no digit left in bfloat16."""
    x = jnp.linspace(-4, 2, 4001).astype(jnp.bfloat16)
    function = ACTIVATION_FUNCTIONS[name]
    for applied in (function, jax.vmap(jax.grad(function))):
        expected = applied(x.astype(jnp.float32))
        found = jax.jit(applied)(x)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8, atol=1e-7)


def test_layer_norm_of_bfloat16_is_rounded_once_at_the_end() -> None:
    x = jnp.array(np.random.default_rng(0).normal(8.0, 1.0, (4, 32)), jnp.bfloat16)
    found = quick_jit(LayerNorm(SHAPES["erf"], jnp.bfloat16))(x)
    exact = torch.nn.functional.layer_norm(torch.from_numpy(np.asarray(x, np.float64)), (32,), eps=1e-12)
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8)


def test_parameters_and_gradients_are_float32_under_bfloat16_compute(checkpoints: Checkpoints) -> None:
    graphdef, loaded = nnx.split(checkpoints.model("BertModel", dtype=jnp.bfloat16))
    made = BertModel.abstract(SHAPES["erf"], jnp.bfloat16)[1]

    def loss(params: nnx.State) -> jax.Array:
        return nnx.merge(graphdef, params)(jnp.ones((1, 4), jnp.int32)).pooler_output.astype(jnp.float32).sum()

    gradients = jax.eval_shape(jax.grad(loss), loaded)
    with jax.enable_x64(True):
        config = dataclasses.replace(SHAPES["erf"], position_init="sinusoidal")
        doubles = [cls.abstract(config, jnp.float32)[1] for cls in (BertModel, BertForMaskedLM)]
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((loaded, made, gradients, doubles))} == {"float32"}


def test_a_model_without_pooler_has_hidden_states_and_no_pooled_output(checkpoints: Checkpoints) -> None:
    arrays = batch("erf", padded=True)
    without = checkpoints.model("BertForMaskedLM").bert
    found = outputs(without, **arrays)
    expected = torch_outputs(torch_model("BertForMaskedLM", "erf").bert, arrays)
    np.testing.assert_allclose(found.last_hidden_state, expected["last_hidden_state"], atol=1e-4, rtol=0)
    assert found.pooler_output is None
    with pytest.raises(ValueError, match="without a pooler"):
        without.pool(found.last_hidden_state)


@quick_jit
def initial_params(key: jax.Array) -> dict[str, jax.Array]:
    return flat_params(BertModel.initial_params(dataclasses.replace(SHAPES["erf"], initializer_range=0.05), key))


def test_initial_parameters_are_normal_kernels_zero_biases_and_unit_scales() -> None:
    for name, value in initial_params(jax.random.key(0)).items():
        if name.endswith(("bias", "scale")):
            np.testing.assert_array_equal(value, 1.0 if name.endswith("scale") else 0.0)
        else:  # within five standard errors
            assert abs(value.std() / 0.05 - 1) < 5 / np.sqrt(2 * value.size), name
            assert abs(value.mean()) < 5 * 0.05 / np.sqrt(value.size), name


def test_initial_parameters_differ_between_layers_and_between_seeds() -> None:
    first, second = initial_params(jax.random.key(0)), initial_params(jax.random.key(1))
    kernels = [first["layers.0.attention.qkv_kernel"], first["layers.1.attention.qkv_kernel"],
               second["layers.0.attention.qkv_kernel"]]  # fmt: skip
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 3


def test_sinusoids_are_those_of_the_transformer_scaled_to_mean_square_1() -> None:
    found = np.asarray(sinusoids(10_000, 12))  # so many that the longest wavelength is the paper's
    theirs = MarianSinusoidalPositionalEmbedding(10_000, 12).create_weight().numpy()
    np.testing.assert_allclose(found[:1000], np.sqrt(2) * theirs[:1000], atol=2e-4)
    np.testing.assert_allclose(np.square(found).mean(1), 1, rtol=1e-5)


def test_positions_can_begin_as_sinusoids() -> None:
    config = dataclasses.replace(SHAPES["erf"], initializer_range=0.05, position_init="sinusoidal")
    found = flat_params(quick_jit(lambda key: BertModel.initial_params(config, key))(jax.random.key(0)))
    waves = sinusoids(config.max_position_embeddings, config.hidden_size)
    np.testing.assert_allclose(found["embeddings.position"], 0.05 * waves, atol=1e-7)
    assert abs(found["embeddings.word"].std() / 0.05 - 1) < 0.2


ONES = np.ones((2, 5), int)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": np.ones(5, int)}, r"\[rows, length\]"),
        ({"segment_ids": ONES, "attention_mask": ONES}, "not both"),
        ({"segment_ids": ONES}, "position_ids"),
        ({"segment_ids": ONES, "position_ids": ONES, "dropout_key": jax.random.key(0)}, "example_ids"),
        ({"attention_mask": np.ones(5, int)}, r"attention_mask has shape \(5,\); that of input_ids is meant, \(2, 5\)"),
        ({"token_type_ids": np.ones((2, 4), int)}, "token_type_ids has shape"),
        ({"input_ids": np.ones((1, 25), int)}, "25 tokens a row, and the model has 24"),
        ({"input_ids": ONES * 1000}, r"input_ids holds 1000, and the model has embeddings for 0 to \d+$"),
        ({"input_ids": -ONES}, "input_ids holds -1"),
        ({"token_type_ids": ONES * 2}, "token_type_ids holds 2, and the model has embeddings for 0 to 1"),
        ({"position_ids": ONES * 24}, "position_ids holds 24, and the model has embeddings for 0 to 23"),
    ],
)
def test_inputs_that_do_not_make_sense_are_refused(
    arguments: dict[str, Any], message: str, checkpoints: Checkpoints
) -> None:
    with pytest.raises(ValueError, match=message):
        checkpoints.model("BertModel")(**{"input_ids": ONES} | arguments)
