"""Attention within the examples of a packed row."""

import math

import jax
import jax.numpy as jnp

from jaxlm.models.dropout import DropoutSite, dropout_attention
from jaxlm.models.products import multiply, precision_of


def segment_mask(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Which key each query sees: `[rows, 1, queries, keys]` from both's segment ids, `[rows, ...]` (0 is padding).

    Two tokens see each other where their segment ids are equal. Padding as a query sees the row's first example, as it
    does in `transformers`; nothing reads the result, but it stays finite and equal to the reference.
    """
    return (jnp.maximum(queries, 1)[:, :, None] == keys[:, None, :])[:, None]


def gather_tokens(x: jax.Array, offsets: jax.Array) -> jax.Array:
    """The tokens at `offsets [rows, n]` of each row of `x [rows, length, ...]`: `[rows, n, ...]`."""
    return jnp.take_along_axis(x, offsets.reshape(*offsets.shape, *(1,) * (x.ndim - 2)), axis=1)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    dropout_rate: float = 0.0,
    site: DropoutSite | None = None,
    key_positions: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), softmax in float32.

    Args:
      query: `[rows, queries, heads, head_dim]`.
      key, value: `[rows, keys, heads, head_dim]`.
      mask: boolean `[rows, 1, queries, keys]`, true where a query sees a key.
      dropout_rate: probability of dropping an attention weight, where `site` is given.
      site: numbers the queries for dropout.
      key_positions: `[rows, keys]`, numbers the keys, where they are other tokens than the queries.

    Returns:
      `[rows, queries, heads, head_dim]` in the dtype of `value`.
    """
    # Heads first: on a CPU these products run up to 1.8 times as fast as over [rows, length, heads, head_dim].
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    asked = {"precision": precision_of(query), "preferred_element_type": jnp.float32}
    scores = jnp.einsum("rhqd,rhkd->rhqk", query, key, **asked)
    scores = jnp.where(mask, scores / math.sqrt(query.shape[-1]), jnp.finfo(jnp.float32).min)
    probabilities = dropout_attention(jax.nn.softmax(scores, axis=-1), dropout_rate, site, key_positions)
    return multiply(probabilities.astype(value.dtype), value, "rhqk,rhkd->rhqd").transpose(0, 2, 1, 3)
