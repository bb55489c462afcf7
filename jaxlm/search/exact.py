"""Exact search: the largest inner products of queries with documents, in blocks, on all devices."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxlm.parallel.mesh import by_rows, fetch_rows, replicated, row_axes, row_shards

_BLOCK = 16384  # documents a device at a time: 64 MiB of scores for `_QUERIES` queries
_QUERIES = 1024  # queries at a time


class Best(NamedTuple):
    """The best documents of each query, best first; of equal scores the earlier document."""

    scores: np.ndarray  # [queries, k] float32
    documents: np.ndarray  # [queries, k] int32, their numbers


_OnDevice = tuple[jax.Array, jax.Array]  # as `Best`, of each device: `[devices, queries, k]`


class ExactSearch:
    """Searches vectors that may lie on disk: blocks of them pass through the devices, each of which keeps its best `k`.

    Nothing grows with the collection but time: a block is `[devices * rows, dimension]`, split by rows over the mesh's
    axes for rows. Products are float32 in full precision, so that the answer is that of a plain matrix product.

    Args:
      vectors: `[documents, dimension]` float32 or float16, in memory or mapped from a file.
      block: documents a device at a time.
    """

    def __init__(self, vectors: np.ndarray, mesh: Mesh, *, block: int = _BLOCK):
        self._vectors, self._mesh = vectors, mesh
        self._devices = row_shards(mesh)
        needed = -(-len(vectors) // self._devices)
        self._rows = min(block, 1 << max(needed - 1, 0).bit_length())  # few shapes, so that the compilation cache hits

    def __call__(self, queries: np.ndarray, k: int) -> Best:
        """The best `min(k, documents)` documents for each of `queries [queries, dimension]`."""
        k = min(k, len(self._vectors))
        if not k or not len(queries):
            return Best(np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int32))
        parts = [self._search(queries[start : start + _QUERIES], k) for start in range(0, len(queries), _QUERIES)]
        return Best(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _search(self, queries: np.ndarray, k: int) -> Best:
        count, padded = len(queries), 1 << (len(queries) - 1).bit_length()
        fill = np.zeros((padded - count, queries.shape[1]), np.float32)
        whole, rows = replicated(self._mesh), by_rows(self._mesh)
        on_device = jax.device_put(np.concatenate([queries.astype(np.float32), fill]), whole)
        shape = (self._devices, padded, k)
        best = jax.device_put((np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32)), rows)
        size = self._devices * self._rows
        for first in range(0, len(self._vectors), size):
            block = np.asarray(self._vectors[first : first + size])
            if len(block) < size:
                block = np.concatenate([block, np.zeros((size - len(block), block.shape[1]), block.dtype)])
            best = _merge_block(
                best, on_device, jax.device_put(block, rows), np.int32(first), np.int32(len(self._vectors)),
                mesh=self._mesh,
            )  # fmt: skip
        scores, documents = (fetch_rows(part).swapaxes(0, 1).reshape(padded, -1)[:count] for part in best)
        order = np.lexsort((documents, -scores))[:, :k]
        return Best(np.take_along_axis(scores, order, 1), np.take_along_axis(documents, order, 1))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _merge_block(
    best: _OnDevice, queries: jax.Array, block: jax.Array, first: jax.Array, documents: jax.Array, *, mesh: Mesh
) -> _OnDevice:
    """The best so far, and a block's documents, numbered from `first`, merged on each device."""

    def on_each(
        best: _OnDevice, queries: jax.Array, block: jax.Array, first: jax.Array, documents: jax.Array
    ) -> _OnDevice:
        known_scores, known = best[0][0], best[1][0]
        numbers = first + jax.lax.axis_index(row_axes(mesh)) * len(block) + jnp.arange(len(block), dtype=jnp.int32)
        scores = jnp.einsum("qd,nd->qn", queries, block.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        scores = jnp.where(numbers < documents, scores, -jnp.inf)
        # The earlier documents stand first, and top_k keeps the first of equals.
        top, places = jax.lax.top_k(jnp.concatenate([known_scores, scores], axis=1), known.shape[-1])
        every = jnp.concatenate([known, jnp.broadcast_to(numbers, scores.shape)], axis=1)
        return top[None], jnp.take_along_axis(every, places, axis=1)[None]

    rows = P(row_axes(mesh))
    return jax.shard_map(on_each, mesh=mesh, in_specs=(rows, P(), rows, P(), P()), out_specs=rows)(
        best, queries, block, first, documents
    )
