"""Attention within packed rows as one kernel for GPUs, in Pallas: scores, mask and dropout never reach memory.

The algorithm is FlashAttention's (Dao et al. 2022, https://arxiv.org/abs/2205.14135, and 2023,
https://arxiv.org/abs/2307.08691): blocks of queries go past blocks of keys with a running softmax, and the backward
pass computes scores again from the logarithm of each query's sum. Two things are a packed BERT's own: a block of
queries meets only the blocks of keys that hold a token of its examples, and dropout is the counter hash of
`jaxlm.models.dropout`, computed in place, so that the numbers are those of `jaxlm.models.attention.attend`.

Triton is what it is lowered to: newer versions of JAX warn that they will drop it for Mosaic, which serves GPUs from
Hopper on and cannot be tried without one.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jaxlm.models.dropout import DropoutSite, keep_weights
from jaxlm.models.placement import axis_size, platform, spec

_BLOCK = 64  # queries and keys at once: 64 x 64 scores of float32 are 32 registers a thread in 4 warps
_SMALLEST_BLOCK = 16  # of a product in Triton
_NOTHING = -1e30  # the largest score of a query that has seen no key: finite, so that no difference is NaN
_PARAMS = triton.CompilerParams(num_warps=4, num_stages=2)


def fused_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, dropout_rate: float = 0.0,
    site: DropoutSite | None = None,
) -> jax.Array:  # fmt: skip
    """Scaled dot-product attention within the segments of each row, softmax in float32.

    Equal to `attend` with `segment_mask(segment_ids)`, but for queries that see no key at all (a row of padding alone),
    whose result is 0. On a mesh, each device has its rows and heads. On a CPU the kernel is interpreted, which serves
    tests and nothing else.

    Args:
      query, key, value: `[rows, length, heads, head_dim]`, the last one of `FUSED_HEAD_DIMS`.
      segment_ids: `[rows, length]`, 0 is padding.
      dropout_rate: probability of dropping an attention weight, where `site` is given.
      site: numbers the tokens for dropout.

    Returns:
      `[rows, length, heads, head_dim]` in the dtype of `value`.
    """
    rate = 0.0 if site is None else dropout_rate
    words = jnp.zeros(segment_ids.shape, jnp.uint32) if site is None else site.token_words()
    positions = jnp.zeros(segment_ids.shape, jnp.uint32) if site is None else site.positions

    def own(query: jax.Array, key: jax.Array, value: jax.Array, *tokens: jax.Array) -> jax.Array:
        first_head = jax.lax.axis_index("tensor") * query.shape[2] if heads_are_split else 0
        return _attend(query, key, value, *tokens, jnp.asarray([first_head], jnp.uint32), rate, interpret)

    heads_are_split, interpret = axis_size("tensor") > 1, platform() == "cpu"
    vectors, rows = spec("rows", None, "tensor", None), spec("rows", None)
    if jax.sharding.get_abstract_mesh().empty:
        return own(query, key, value, segment_ids, words, positions)
    return jax.shard_map(own, in_specs=(vectors,) * 3 + (rows,) * 3, out_specs=vectors, check_vma=False)(
        query, key, value, segment_ids, words, positions
    )


class _Tokens(NamedTuple):
    """What the kernels know of the tokens of a row; all `[rows, length]` but the last two. Arrays, their blocks' specs,
    or references to them within a kernel."""

    query_segments: Any
    key_segments: Any
    words: Any  # for dropout, of the query
    positions: Any  # for dropout, of the key
    head: Any  # [1], the first of this device; within a kernel, the program's own
    bounds: Any  # [rows, 2, blocks]: which blocks each block meets, from and to


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, words: jax.Array,
    positions: jax.Array, first_head: jax.Array, rate: float, interpret: bool,
) -> jax.Array:  # fmt: skip
    return _forward(query, key, value, segment_ids, words, positions, first_head, rate, interpret)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array, words: jax.Array,
    positions: jax.Array, first_head: jax.Array, rate: float, interpret: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:  # fmt: skip
    call = _Call(query.shape, segment_ids, words, positions, first_head, rate, interpret)
    shapes = [jax.ShapeDtypeStruct(call.padded_shape, value.dtype), call.by_query(jnp.float32)]
    q, k, v = call.pad(query, key, value)
    out, log_sums = call(_forward_kernel, [q, k, v], [], shapes, queries=True)
    out = out[:, : query.shape[1]]
    return out, (query, key, value, segment_ids, words, positions, first_head, out, log_sums)


def _backward(
    rate: float, interpret: bool, saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array | None, ...]:
    query, key, value, segment_ids, words, positions, first_head, out, log_sums = saved
    call = _Call(query.shape, segment_ids, words, positions, first_head, rate, interpret)
    # The sum over keys of weight times its gradient, of each query (FlashAttention 2, section 3.1.2).
    sums = (out.astype(jnp.float32) * gradient.astype(jnp.float32)).sum(-1).transpose(0, 2, 1)
    sums = jnp.pad(sums, ((0, 0), (0, 0), (0, call.padding)))
    vectors = call.pad(query, key, value, gradient)
    like = [jax.ShapeDtypeStruct(call.padded_shape, x.dtype) for x in (query, key, value)]
    (of_query,) = call(_query_gradient_kernel, vectors, [log_sums, sums], like[:1], queries=True)
    of_key, of_value = call(_key_gradient_kernel, vectors, [log_sums, sums], like[1:], queries=False)
    length = query.shape[1]
    return of_query[:, :length], of_key[:, :length], of_value[:, :length], None, None, None, None


_attend.defvjp(_forward, _backward)


class _Call:
    """What the three kernels have in common: rows padded to whole blocks, and a program for each block of each head."""

    def __init__(self, shape: tuple[int, ...], segment_ids: jax.Array, words: jax.Array, positions: jax.Array,
                 first_head: jax.Array, rate: float, interpret: bool):  # fmt: skip
        self.rows, length, self.heads, self.head_dim = shape
        self.block = min(_BLOCK, max(_SMALLEST_BLOCK, pl.next_power_of_2(length)))
        self.padding = -length % self.block
        self.length = length + self.padding
        self.padded_shape = (self.rows, self.length, self.heads, self.head_dim)
        self.rate, self.interpret = rate, interpret
        segments, words, positions = self.pad(segment_ids, words, positions)
        # Padding as a query sees the row's first example, as in `segment_mask`.
        tokens = _Tokens(jnp.maximum(segments, 1), segments, words, positions, first_head, jnp.zeros(0))
        meets = _blocks_that_meet(tokens.query_segments, tokens.key_segments, self.block)
        self._of_queries = tokens._replace(bounds=_bounds(meets))
        self._of_keys = tokens._replace(bounds=_bounds(meets.swapaxes(1, 2)))

    def pad(self, *arrays: jax.Array) -> list[jax.Array]:
        """`[rows, length, ...]`, with zeros up to whole blocks."""
        return [jnp.pad(x, ((0, 0), (0, self.padding), *((0, 0),) * (x.ndim - 2))) for x in arrays]

    def by_query(self, dtype: Any) -> jax.ShapeDtypeStruct:
        """A number for each query of each head."""
        return jax.ShapeDtypeStruct((self.rows, self.heads, self.length), dtype)

    def __call__(
        self, kernel: Any, vectors: list[jax.Array], numbers: list[jax.Array], out: list[jax.ShapeDtypeStruct], *,
        queries: bool,
    ) -> list[jax.Array]:  # fmt: skip
        """Runs a kernel for every block of queries, or of keys. It is given whole rows and takes its blocks of them."""
        tokens = self._of_queries if queries else self._of_keys
        length, head_dim, blocks = self.length, self.head_dim, self.length // self.block
        row = pl.BlockSpec((None, length), lambda block, head, row: (row, 0))
        of_head = pl.BlockSpec((None, None, length), lambda block, head, row: (row, head, 0))
        whole = pl.BlockSpec((None, length, None, head_dim), lambda block, head, row: (row, 0, head, 0))
        one = pl.BlockSpec((1,), lambda block, head, row: (0,))
        bounds = pl.BlockSpec((None, 2, blocks), lambda block, head, row: (row, 0, 0))
        return pl.pallas_call(
            functools.partial(kernel, block=self.block, rate=self.rate),
            out_shape=out,
            grid=(blocks, self.heads, self.rows),
            in_specs=[_Tokens(row, row, row, row, one, bounds), *[whole] * len(vectors), *[of_head] * len(numbers)],
            out_specs=[whole if len(x.shape) == 4 else of_head for x in out],
            compiler_params=_PARAMS,
            interpret=self.interpret,
            name=kernel.__name__.strip("_"),
        )(tokens, *vectors, *numbers)


def _blocks_that_meet(queries: jax.Array, keys: jax.Array, block: int) -> jax.Array:
    """Whether a block of queries may see one of keys, `[rows, blocks, blocks]`: their ranges of segments overlap."""
    q, k = (x.reshape(len(x), -1, block) for x in (queries, keys))
    return (q.min(-1)[:, :, None] <= k.max(-1)[:, None]) & (k.min(-1)[:, None] <= q.max(-1)[:, :, None])


def _bounds(meets: jax.Array) -> jax.Array:
    """From the first to behind the last that each block meets, `[rows, 2, blocks]`; 0 and 0 where there is none."""
    stop = jnp.where(meets.any(-1), meets.shape[-1] - meets[..., ::-1].argmax(-1), 0)
    return jnp.stack([meets.argmax(-1), stop], axis=1).astype(jnp.int32)


class _Scores(NamedTuple):
    """Of a block of queries and one of keys, `[queries, keys]`: scores in powers of two, which of them count, and what
    dropout multiplies weights by (None: it does not)."""

    values: jax.Array
    seen: jax.Array
    kept: jax.Array | None

    @classmethod
    def of(cls, tokens: _Tokens, q: jax.Array, k: jax.Array, queries: Any, keys: Any, rate: float) -> "_Scores":
        values = triton.dot(q, k, trans_b=True, **_precision(q)) * (math.log2(math.e) / math.sqrt(q.shape[-1]))
        seen = tokens.query_segments[queries][:, None] == tokens.key_segments[keys][None, :]
        if not rate:
            return cls(values, seen, None)
        kept = keep_weights(tokens.words[queries], tokens.head, tokens.positions[keys], rate)
        return cls(values, seen, jnp.where(kept, 1 / (1 - rate), 0.0))

    def weights(self, log_sums: jax.Array) -> jax.Array:
        """Softmax, by each query's logarithm (to base 2) of the sum of its exponentials."""
        return jnp.where(self.seen, jnp.exp2(self.values - log_sums[:, None]), 0.0)

    def drop(self, x: jax.Array) -> jax.Array:
        return x if self.kept is None else x * self.kept


def _precision(x: jax.Array) -> dict[str, Any]:
    """Products of float32 are computed in float32, not in TF32."""
    return {"allow_tf32": False} if x.dtype == jnp.float32 else {}


def _dot(a: jax.Array, b: jax.Array, trans_a: bool = False, trans_b: bool = False) -> jax.Array:
    """A product in the dtype of `b`, with a float32 result."""
    return triton.dot(a.astype(b.dtype), b, trans_a, trans_b, **_precision(b))


def _own(tokens: _Tokens) -> tuple[jax.Array, _Tokens]:
    """The program's block, and the tokens with the program's head."""
    return pl.program_id(0), tokens._replace(head=pl.program_id(1).astype(jnp.uint32) + tokens.head[0])


def _forward_kernel(
    tokens: _Tokens, query: Any, key: Any, value: Any, out: Any, log_sums: Any, *, block: int, rate: float
) -> None:
    number, tokens = _own(tokens)
    queries = pl.ds(number * block, block)
    q = query[queries, :]

    def meet(other: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        mixed, largest, total = state
        keys = pl.ds(other * block, block)
        scores = _Scores.of(tokens, q, key[keys, :], queries, keys, rate)
        new_largest = jnp.maximum(largest, jnp.where(scores.seen, scores.values, _NOTHING).max(-1))
        correction, weights = jnp.exp2(largest - new_largest), scores.weights(new_largest)
        mixed = mixed * correction[:, None] + _dot(scores.drop(weights), value[keys, :])
        return mixed, new_largest, total * correction + weights.sum(-1)

    start = jnp.zeros(q.shape, jnp.float32), jnp.full(block, _NOTHING, jnp.float32), jnp.zeros(block, jnp.float32)
    mixed, largest, total = jax.lax.fori_loop(tokens.bounds[0, number], tokens.bounds[1, number], meet, start)
    total = jnp.where(total == 0, 1.0, total)
    out[queries, :] = (mixed / total[:, None]).astype(out.dtype)
    log_sums[queries] = largest + jnp.log2(total)


def _gradients(
    tokens: _Tokens, q: jax.Array, k: jax.Array, v: jax.Array, gradient: jax.Array, queries: Any, keys: Any,
    log_sums: Any, sums: Any, rate: float,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Of a block of queries and one of keys: weights after dropout, and the gradient of scores."""
    scores = _Scores.of(tokens, q, k, queries, keys, rate)
    weights = scores.weights(log_sums[queries])
    of_weights = scores.drop(_dot(gradient, v, trans_b=True))
    of_scores = weights * (of_weights - sums[queries][:, None]) / math.sqrt(q.shape[-1])
    return scores.drop(weights), of_scores


def _query_gradient_kernel(
    tokens: _Tokens, query: Any, key: Any, value: Any, gradient: Any, log_sums: Any, sums: Any, out: Any, *,
    block: int, rate: float,
) -> None:  # fmt: skip
    number, tokens = _own(tokens)
    queries = pl.ds(number * block, block)
    q, g = query[queries, :], gradient[queries, :]

    def meet(other: jax.Array, total: jax.Array) -> jax.Array:
        keys = pl.ds(other * block, block)
        k = key[keys, :]
        _, of_scores = _gradients(tokens, q, k, value[keys, :], g, queries, keys, log_sums, sums, rate)
        return total + _dot(of_scores, k)

    start = jnp.zeros(q.shape, jnp.float32)
    total = jax.lax.fori_loop(tokens.bounds[0, number], tokens.bounds[1, number], meet, start)
    out[queries, :] = total.astype(out.dtype)


def _key_gradient_kernel(
    tokens: _Tokens, query: Any, key: Any, value: Any, gradient: Any, log_sums: Any, sums: Any, of_key: Any,
    of_value: Any, *, block: int, rate: float,
) -> None:  # fmt: skip
    number, tokens = _own(tokens)
    keys = pl.ds(number * block, block)
    k, v = key[keys, :], value[keys, :]

    def meet(other: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        queries = pl.ds(other * block, block)
        q, g = query[queries, :], gradient[queries, :]
        weights, of_scores = _gradients(tokens, q, k, v, g, queries, keys, log_sums, sums, rate)
        return totals[0] + _dot(of_scores, q, trans_a=True), totals[1] + _dot(weights, g, trans_a=True)

    start = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    totals = jax.lax.fori_loop(tokens.bounds[0, number], tokens.bounds[1, number], meet, start)
    of_key[keys, :], of_value[keys, :] = (x.astype(of_key.dtype) for x in totals)
