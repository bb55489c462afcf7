"""Attention sees an example and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxlm.models import attention
from jaxlm.models.attention import segment_mask

from .reference import quick_jit

attend = quick_jit(attention.attend)


def test_a_token_sees_its_own_segment_and_padding_sees_the_first() -> None:
    mask = segment_mask(*[jnp.array([[1, 1, 2, 0]])] * 2)
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0]]
    np.testing.assert_array_equal(mask, np.array([[expected]], bool))


def test_attention_equals_torch() -> None:
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 2, 7, 4, 5)).astype(np.float32)
    mask = np.array(segment_mask(*[jnp.array([[1, 1, 1, 2, 2, 3, 0], [1] * 7])] * 2))
    found = attend(jnp.array(query), jnp.array(key), jnp.array(value), jnp.array(mask))
    q, k, v = [torch.from_numpy(array).transpose(1, 2) for array in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=torch.from_numpy(mask))
    np.testing.assert_allclose(found, expected.transpose(1, 2), atol=1e-6)


def test_what_a_query_does_not_see_cannot_reach_it() -> None:
    rng = np.random.default_rng(1)
    query, key, value = (jnp.array(array) for array in rng.normal(size=(3, 1, 6, 2, 4)))
    mask = segment_mask(*[jnp.array([[1, 1, 1, 2, 2, 0]])] * 2)
    before = attend(query, key, value, mask)
    after = attend(query, key.at[:, 3:].set(1e4), value.at[:, 3:].set(1e4), mask)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])


def test_scores_and_softmax_of_bfloat16_are_float32() -> None:
    rng = np.random.default_rng(2)
    query, key, value = (jnp.array(array, jnp.bfloat16) for array in rng.normal(size=(3, 1, 64, 2, 16)))
    found = attend(query * 8, key, value, segment_mask(*[jnp.ones((1, 64), jnp.int32)] * 2))
    q, k, v = (torch.from_numpy(np.asarray(array, np.float64)).transpose(1, 2) for array in (query * 8, key, value))
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    # The weights and the result are rounded once each, to eight bits. Rounded scores (up to 30) would be off by 0.06.
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, atol=2**-7 * float(exact.abs().max()))


def test_the_result_has_the_dtype_of_the_values() -> None:
    x = jnp.ones((1, 3, 2, 4), jnp.bfloat16)
    mask = segment_mask(*[jnp.ones((1, 3), jnp.int32)] * 2)
    assert jax.eval_shape(attention.attend, x, x, x, mask).dtype == jnp.bfloat16
