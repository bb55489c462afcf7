"""Dropout is random where it should be, and the same where it should be."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxlm.models import BertForSequenceClassification
from jaxlm.models.dropout import DropoutSite, DropoutSites, dropout_attention, dropout_tokens, lowbias32

from .reference import SHAPES, batch, outputs, quick_jit, random_params

SEVERAL = [0, 1, 2, 3, 1000, 65536, 10**9, 2**32 - 1]


def sites(seed: int, examples: Any, length: int, layers: int = 1) -> DropoutSites:
    """Sites of rows that hold one example each."""
    examples = jnp.array(examples, jnp.uint32)[:, None]
    shape = (len(examples), length)
    positions = jnp.broadcast_to(jnp.arange(length), shape)
    return DropoutSites.create(jax.random.key(seed), layers, jnp.broadcast_to(examples, shape), positions)


@functools.partial(quick_jit, static_argnums=(0, 2))
def dropped(drop: Any, x: jax.Array, rate: float, site: DropoutSite) -> jax.Array:
    return drop(x, rate, site)


def token_mask(site: DropoutSite, rate: float = 0.5, features: int = 64) -> np.ndarray:
    """What is kept of tokens: `[rows, length, features]`."""
    return np.asarray(dropped(dropout_tokens, jnp.ones((*site.positions.shape, features)), rate, site)) > 0


def attention_mask(site: DropoutSite, rate: float = 0.5, heads: int = 4) -> np.ndarray:
    """What is kept of attention probabilities: `[rows, heads, queries, keys]`."""
    rows, length = site.positions.shape
    return np.asarray(dropped(dropout_attention, jnp.ones((rows, heads, length, length)), rate, site)) > 0


def largest_correlation(masks: np.ndarray, axis: int = 0) -> float:
    """Of any two slices along `axis`, in standard errors of the correlation between independent masks."""
    slices = np.moveaxis(masks, axis, 0).reshape(masks.shape[axis], -1)
    correlations = np.corrcoef(slices)
    np.fill_diagonal(correlations, 0)
    return float(np.abs(correlations).max() * np.sqrt(slices.shape[1]))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_dropped_share_is_the_rate(rate: float) -> None:
    site = sites(0, range(32), 64).site(0, 1)
    for mask in (token_mask(site, rate), attention_mask(site, rate)):
        standard_error = np.sqrt(rate * (1 - rate) / mask.size)
        assert abs((~mask).mean() - rate) < 4 * standard_error


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["example", "position", "feature"])
def test_every_example_position_and_feature_is_dropped_at_the_rate(axis: int) -> None:
    shares = np.moveaxis(~token_mask(sites(1, range(64), 64).site(0, 0), 0.1), axis, 0).reshape(64, -1)
    assert np.abs(shares.mean(1) - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / shares.shape[1])


def test_masks_of_sites_layers_and_steps_are_independent() -> None:
    masks = [
        token_mask(sites(step, SEVERAL, 32, layers=3).site(layer, site))
        for step in range(4)
        for layer in range(4)  # three layers, then embeddings and heads
        for site in range(3)
    ]
    assert largest_correlation(np.stack(masks)) < 5


def test_seeds_that_differ_in_one_bit_of_either_word_give_independent_masks() -> None:
    site = sites(11, SEVERAL, 32).site(0, 0)
    seeds = [(0, 0), (0, 1), (1, 0), (0, 2**31), (2**31, 0)]
    masks = [token_mask(site._replace(seed=jnp.array(seed, jnp.uint32))) for seed in seeds]
    assert largest_correlation(np.stack(masks)) < 5


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["example", "position", "feature"])
def test_token_masks_are_independent_between(axis: int) -> None:
    examples = [*range(32), *range(10**6, 10**6 + 24), *SEVERAL[4:], 2**31, 2**31 + 1, 2**16 + 1, 2**16 - 1]
    assert largest_correlation(token_mask(sites(2, examples, 64).site(0, 0)), axis) < 5


@pytest.mark.parametrize("axis", [0, 1, 2, 3], ids=["example", "head", "query", "key"])
def test_attention_masks_are_independent_between(axis: int) -> None:
    assert largest_correlation(attention_mask(sites(3, SEVERAL, 48).site(0, 0), heads=12), axis) < 5


def test_an_attention_mask_is_not_symmetric_in_query_and_key() -> None:
    mask = attention_mask(sites(4, range(16), 48).site(0, 0))
    later, earlier = np.tril_indices(48, -1)
    assert largest_correlation(np.stack([mask[:, :, later, earlier], mask[:, :, earlier, later]])) < 5


def test_a_mask_follows_its_example_to_another_row_and_offset() -> None:
    site = sites(5, [11, 12], 4).site(0, 0)
    packed = DropoutSite(
        site.seed,
        example_ids=jnp.array([[99, 12, 12, 12, 12, 11, 11, 11, 11]], jnp.uint32),
        positions=jnp.array([[0, 0, 1, 2, 3, 0, 1, 2, 3]], jnp.uint32),
    )
    tokens, packed_tokens = token_mask(site), token_mask(packed)
    np.testing.assert_array_equal(packed_tokens[0, 5:], tokens[0])
    np.testing.assert_array_equal(packed_tokens[0, 1:5], tokens[1])
    weights, packed_weights = attention_mask(site), attention_mask(packed)
    np.testing.assert_array_equal(packed_weights[0, :, 5:, 5:], weights[0])
    np.testing.assert_array_equal(packed_weights[0, :, 1:5, 1:5], weights[1])


def test_a_site_at_offsets_drops_what_the_whole_rows_drop_there() -> None:
    site, offsets = sites(6, [3, 4], 8).site(0, 0), np.array([[7, 0, 2], [1, 1, 5]])
    whole = token_mask(site)
    np.testing.assert_array_equal(
        token_mask(site.at(jnp.array(offsets))), np.take_along_axis(whole, offsets[..., None], axis=1)
    )


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_preserves_the_expectation(rate: float) -> None:
    x = jnp.array([3.0, -0.25, 1e-3])
    site = sites(7, range(64), 256).site(0, 0)
    found = np.asarray(dropped(dropout_tokens, jnp.broadcast_to(x, (64, 256, 3)), rate, site), np.float64).reshape(
        -1, 3
    )
    standard_error = np.abs(x) * np.sqrt(rate / (1 - rate) / len(found))
    assert (np.abs(found.mean(0) - x) < 4 * standard_error).all()


def test_what_is_kept_is_scaled_and_the_rest_is_0() -> None:
    site, x = sites(8, range(4), 8).site(0, 0), np.random.default_rng(0).normal(size=(4, 8, 64)).astype(np.float32)
    expected = np.where(token_mask(site, 0.2), x / np.float32(0.8), 0)
    np.testing.assert_allclose(dropped(dropout_tokens, jnp.array(x), 0.2, site), expected, rtol=1e-6)
    weights = np.random.default_rng(0).uniform(size=(4, 4, 8, 8)).astype(np.float32)
    expected = np.where(attention_mask(site, 0.2), weights / np.float32(0.8), 0)
    np.testing.assert_allclose(dropped(dropout_attention, jnp.array(weights), 0.2, site), expected, rtol=1e-6)


def test_dropout_keeps_the_dtype() -> None:
    site = sites(9, [0], 4).site(0, 0)
    for drop, shape in ((dropout_tokens, (1, 4, 2)), (dropout_attention, (1, 2, 4, 4))):
        result = jax.eval_shape(functools.partial(drop, rate=0.1, site=site), jnp.ones(shape, jnp.bfloat16))
        assert result.dtype == jnp.bfloat16


def test_without_site_or_rate_the_array_itself_comes_back() -> None:
    x, site = jnp.ones((1, 4, 2)), sites(10, [0], 4).site(0, 0)
    assert dropout_tokens(x, 0.5, None) is x
    assert dropout_tokens(x, 0.0, site) is x
    assert dropout_attention(x, 0.5, None) is x
    assert dropout_attention(x, 0.0, site) is x


def test_every_input_bit_of_the_hash_flips_every_output_bit_half_of_the_time() -> None:
    x = jax.random.bits(jax.random.key(0), (4096, 1), jnp.uint32)
    flipped = lowbias32(x) ^ lowbias32(x ^ (jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)))
    share = np.unpackbits(np.asarray(flipped).view(np.uint8).reshape(4096, 32, 4), axis=-1).mean(0)
    assert np.abs(share - 0.5).max() < 0.05


DROPPING = dataclasses.replace(
    SHAPES["erf"], hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3, classifier_dropout=0.5
)
STILL = dataclasses.replace(DROPPING, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)


def logits(config: Any, seed: int | None) -> np.ndarray:
    graphdef = BertForSequenceClassification.abstract(config)[0]
    model = nnx.merge(graphdef, random_params(BertForSequenceClassification, config))
    key = {} if seed is None else {"dropout_key": jax.random.key(seed)}
    return np.asarray(outputs(model, **batch("erf", padded=True), **key).logits)


def test_a_model_drops_nothing_without_a_key() -> None:
    np.testing.assert_array_equal(logits(DROPPING, None), logits(STILL, None))
    np.testing.assert_array_equal(logits(STILL, 0), logits(STILL, None))


def test_the_key_decides_what_a_model_drops() -> None:
    np.testing.assert_array_equal(logits(DROPPING, 0), logits(DROPPING, 0))
    assert np.abs(logits(DROPPING, 0) - logits(DROPPING, 1)).max() > 1e-2
    assert np.abs(logits(DROPPING, 0) - logits(DROPPING, None)).max() > 1e-2


def test_every_place_of_a_model_where_dropout_happens_has_a_site_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[jax.Array] = []

    def record(x: jax.Array, rate: float, site: DropoutSite, *_: jax.Array) -> jax.Array:
        seeds.append(site.seed)
        return x

    for place in ("bert.dropout_tokens", "attention.dropout_attention", "heads.dropout_tokens"):
        monkeypatch.setattr(f"jaxlm.models.{place}", record)

    @quick_jit
    def run(key: jax.Array) -> jax.Array:
        model = nnx.merge(BertForSequenceClassification.abstract(DROPPING)[0], params)
        model(jnp.ones((1, 4), jnp.int32), dropout_key=key)
        return jnp.stack(seeds)

    params = random_params(BertForSequenceClassification, DROPPING)
    found = np.asarray(run(jax.random.key(0)))
    # Embeddings; in each layer attention weights, attention output and feed-forward output; the classifier.
    assert len(found) == 1 + 3 * DROPPING.num_hidden_layers + 1
    assert len(np.unique(found, axis=0)) == len(found)


def test_what_is_kept_is_scaled_by_the_share_itself_in_bfloat16_too() -> None:
    """0.9 is 0.898 in bfloat16; x / 0.898 would make every layer's output 0.2 % larger than in evaluation."""
    site = sites(0, [1], 64).site(0, 0)
    kept = dropped(dropout_tokens, jnp.full((1, 64, 64), 1.5, jnp.bfloat16), 0.1, site)
    assert set(np.unique(np.asarray(kept, np.float32))) == {0.0, float(jnp.bfloat16(1.5 / 0.9))}
