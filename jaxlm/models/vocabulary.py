"""The word embeddings on a mesh whose `tensor` axis shares the vocabulary (Shoeybi et al. 2019,
https://arxiv.org/abs/1909.08053, section 3).

A table comes with its words split over `tensor`, or, where their number cannot be divided, its vectors: every mesh then
holds arrays of the same shapes, and no padded word is ever stored.
"""

import jax
import jax.numpy as jnp

from jaxlm.models.placement import axis_size, place, spec


def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
    """`table[ids]`, `[rows, length, hidden]`, of `table [vocabulary, hidden]` and `ids [rows, length]`.

    Along `tensor`, each device looks up the words that it has and puts 0 for the others, and the sum is everybody's; or
    each looks up its part of every vector.
    """
    shards = axis_size("tensor")
    if shards == 1:
        return place(table, None, None)[ids]
    if table.shape[0] % shards:
        return place(place(table, None, "tensor")[ids], "rows", None, "tensor")

    def own(table: jax.Array, ids: jax.Array) -> jax.Array:
        ids = ids - jax.lax.axis_index("tensor") * len(table)
        here = (ids >= 0) & (ids < len(table))
        vectors = jnp.where(here[..., None], table[jnp.where(here, ids, 0)], 0)
        return jax.lax.psum(vectors, "tensor")

    rows = spec("rows", None)
    return jax.shard_map(own, in_specs=(spec("tensor", None), rows), out_specs=spec("rows", None, None))(table, ids)


def split_vocabulary(table: jax.Array) -> jax.Array:
    """A table with its words split over `tensor`, and whole along the other axes.

    Vectors that are split are exchanged for words; the compiler pads these.
    """
    if table.shape[0] % axis_size("tensor"):
        table = place(table, None, "tensor")
    return place(table, "tensor", None)


def join_vocabulary(gradient: jax.Array) -> jax.Array:
    """The gradient of a table as it came, from that of what `split_vocabulary` made of it."""
    gradient = place(gradient, "tensor", None)
    return place(gradient, None, "tensor") if gradient.shape[0] % axis_size("tensor") else gradient
