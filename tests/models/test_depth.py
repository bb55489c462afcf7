"""However the layers run, as a loop or one by one, and whatever the backward pass computes again: the numbers are the
same."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxlm.models import BertForPreTraining, BertForSequenceClassification, CheckpointError

from .reference import SHAPES, assert_gradients_equal, flat_params, quick_jit, random_params, relative_error

CONFIG = dataclasses.replace(
    SHAPES["erf"], num_hidden_layers=4, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.4
)
ROWS, LENGTH = 3, 12
_RNG = np.random.default_rng(7)
INPUTS = {
    "input_ids": _RNG.integers(1, CONFIG.vocab_size, (ROWS, LENGTH)),
    "token_type_ids": _RNG.integers(0, 2, (ROWS, LENGTH)),
    "segment_ids": np.tile([1] * 7 + [2] * 4 + [0], (ROWS, 1)),
    "position_ids": np.tile([*range(7), *range(4), 0], (ROWS, 1)),
    "example_ids": np.arange(ROWS)[:, None] * 2 + np.tile([0] * 7 + [1] * 5, (ROWS, 1)),
}
PLACES = {"pool_positions": np.tile([0, 7], (ROWS, 1)), "predict_positions": np.tile([2, 5, 9], (ROWS, 1))}
WAYS = {
    "a loop": {"scan_layers": True},
    "one by one, computing all again": {"remat": "full"},
    "one by one, keeping products": {"remat": "dots"},
    "one by one, computing attention again": {"remat": "attention"},
    "a loop, computing attention again": {"scan_layers": True, "remat": "attention"},
    "a loop, computing all again": {"scan_layers": True, "remat": "full"},
    "a loop, keeping products": {"scan_layers": True, "remat": "dots"},
}
PARAMS = random_params(BertForPreTraining, CONFIG)


@functools.cache
def results(whole: bool, **how: Any) -> tuple[Any, dict[str, jax.Array]]:
    """Logits and gradients with dropout; `whole`: of all tokens, and not of the few that a head reads."""
    graphdef = BertForPreTraining.abstract(dataclasses.replace(CONFIG, **how))[0]
    places = {} if whole else PLACES

    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits = nnx.merge(graphdef, params)(**INPUTS, **places, dropout_key=jax.random.key(3))
        return sum(jnp.square(jax.nn.log_softmax(part)).sum() for part in logits), logits

    gradients, logits = quick_jit(jax.grad(loss, has_aux=True))(PARAMS)
    return logits, flat_params(gradients)


@pytest.mark.parametrize("way", WAYS)
def test_logits_and_gradients_with_dropout_are_those_of_layers_one_by_one(way: str) -> None:
    (logits, gradients), (expected, expected_gradients) = results(False, **WAYS[way]), results(False)
    for found, wanted in zip(logits, expected, strict=True):
        assert relative_error(found, wanted) < 1e-6
    assert_gradients_equal(gradients, expected_gradients, 1e-6)


def test_a_head_that_reads_every_token_gets_the_same_of_a_loop() -> None:
    (logits, gradients), (expected, expected_gradients) = results(True, scan_layers=True), results(True)
    assert relative_error(logits.prediction_logits, expected.prediction_logits) < 1e-6
    assert_gradients_equal(gradients, expected_gradients, 1e-6)


def _kept_bytes(remat: str) -> int:
    """What the compiled gradient holds beside its arguments and results."""
    config = dataclasses.replace(CONFIG, remat=remat, scan_layers=True, max_position_embeddings=64)
    graphdef, params = BertForPreTraining.abstract(config)

    def loss(params: Any, ids: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params)(ids, predict_positions=jnp.zeros((8, 2), int)).prediction_logits.sum()

    ids = jax.ShapeDtypeStruct((8, 64), jnp.int32)
    memory = quick_jit(jax.grad(loss)).lower(params, ids).compile().memory_analysis()
    return int(memory.temp_size_in_bytes)


def test_less_is_kept_the_more_is_computed_again() -> None:
    none, attention, dots, full = map(_kept_bytes, ("none", "attention", "dots", "full"))
    assert attention < 0.8 * none
    assert dots < 0.8 * attention
    assert full < 0.8 * dots


def test_how_layers_run_is_written_into_no_file() -> None:
    changed = dataclasses.replace(CONFIG, scan_layers=True, remat="full")
    assert changed.to_json("BertModel") == CONFIG.to_json("BertModel")


def test_an_unknown_way_to_save_memory_is_refused() -> None:
    with pytest.raises(CheckpointError, match="remat is 'some'; it is one of none, attention, dots, full"):
        dataclasses.replace(CONFIG, **{"remat": "some"})


@pytest.mark.parametrize("remat", ["none", "attention", "dots", "full"])
def test_a_single_layer_runs_whatever_is_kept(remat: Any) -> None:
    """The last layer of a classifier computes the first tokens alone: there is none before it."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=1)
    model = BertForSequenceClassification(config, rngs=nnx.Rngs(0))
    expected = model(INPUTS["input_ids"])
    remade = BertForSequenceClassification(dataclasses.replace(config, remat=remat), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(remade(INPUTS["input_ids"]), expected, rtol=1e-5, atol=1e-6)
