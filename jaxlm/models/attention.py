"""Attention within the examples of a packed row."""

import math

import jax
import jax.numpy as jnp

from jaxlm.models.dropout import DropoutSite, dropout_attention


def segment_mask(segment_ids: jax.Array) -> jax.Array:
    """Which key each query sees: `[rows, 1, queries, keys]` from segment ids `[rows, length]` (0 is padding).

    Two tokens see each other where their segment ids are equal. Padding as a query sees the row's first example, as it
    does in `transformers`; nothing reads the result, but it stays finite and equal to the reference.
    """
    queries = jnp.maximum(segment_ids, 1)
    return (queries[:, :, None] == segment_ids[:, None, :])[:, None]


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    dropout_rate: float = 0.0,
    site: DropoutSite | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), softmax in float32.

    Args:
      query, key, value: `[rows, length, heads, head_dim]`.
      mask: boolean `[rows, 1, queries, keys]`, true where a query sees a key.
      dropout_rate: probability of dropping an attention weight, where `site` is given.

    Returns:
      `[rows, length, heads, head_dim]` in the dtype of `value`.
    """
    scores = jnp.einsum("rqhd,rkhd->rhqk", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores / math.sqrt(query.shape[-1]), jnp.finfo(jnp.float32).min)
    probabilities = dropout_attention(jax.nn.softmax(scores, axis=-1), dropout_rate, site)
    return jnp.einsum("rhqk,rkhd->rqhd", probabilities.astype(value.dtype), value)
