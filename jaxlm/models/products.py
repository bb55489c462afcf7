"""Matrix products whose gradients are written out, because how they are asked for decides how fast they are.

Automatic differentiation gives the same numbers. It asks for the gradient of a kernel in an order in which XLA on a CPU
first transposes the larger of the two factors, and for that of a bias as a sum over rows, which runs at a fraction of a
product's speed: of a training step of BERT with 4 layers, 256 wide, that was a third. Gradients of gradients work;
forward mode (`jax.jvp`) is not defined.

On a mesh they also say where factors and results lie (`jaxlm.models.placement`): kernels are cast before they are
gathered, and their gradients are added up in float32.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from jaxlm.models.placement import axis_size, place, place_rows, platform, row_shards
from jaxlm.models.vocabulary import join_vocabulary, split_vocabulary

Split = Literal["inputs", "outputs"] | None  # what of a kernel is split over the mesh's `tensor` axis


def precision_of(x: jax.Array) -> jax.lax.Precision | None:
    """What products of `x` are asked for in: those of float32 in float32, for which TPUs would take bfloat16 and GPUs
    TF32 if nothing were said. `jax.default_matmul_precision`, where it is set, decides instead."""
    said = jax.config.jax_default_matmul_precision is not None  # type: ignore[attr-defined]
    return None if said or x.dtype != jnp.float32 or platform() == "cpu" else jax.lax.Precision.HIGHEST


def _sum_rows(x: jax.Array) -> jax.Array:
    """The sum over the first axis of `[n, m]`, as a product."""
    ones = jnp.ones(x.shape[0], x.dtype)
    return jnp.einsum("n,nm->m", ones, x, precision=precision_of(x), preferred_element_type=jnp.float32)


def _sum_weighted(weights: jax.Array, x: jax.Array) -> jax.Array:
    """The sum of `weights * x`, float32, over all axes but the last of `weights [..., 1]` and `x [..., m]`.

    A product on a CPU, for its speed; not elsewhere, where factors of products are rounded.
    """
    if platform() == "cpu":
        return jnp.tensordot(weights[..., 0], x.astype(jnp.float32), weights.ndim - 1)
    return (weights * x).sum(axis=tuple(range(x.ndim - 1)))


def _kernel_gradient(x: jax.Array, outer: jax.Array) -> jax.Array:
    """`x^T @ outer`, by transposing the narrower of `x [..., inputs]` and `outer [..., outputs]`."""
    every = tuple(range(x.ndim - 1))
    narrower_first = x.shape[-1] <= outer.shape[-1]
    product = jax.lax.dot_general(
        *((x, outer) if narrower_first else (outer, x)), ((every, every), ((), ())),
        precision=precision_of(x), preferred_element_type=jnp.float32,
    )  # fmt: skip
    return product if narrower_first else product.T


def multiply(x: jax.Array, kernel: jax.Array, subscripts: str = "...i,io->...o") -> jax.Array:
    """The product of `x` and `kernel` in the dtype of `x`.

    On a CPU it is asked for in float32 and then rounded: XLA has the processor's bfloat16 instructions (AMX) for no
    other product of bfloat16, which are four times as fast there.
    """
    on_cpu = {"preferred_element_type": jnp.float32} if platform() == "cpu" else {}
    return jnp.einsum(subscripts, x, kernel, precision=precision_of(x), **on_cpu).astype(x.dtype)


def _placed(kernel: jax.Array, split: Split) -> jax.Array:
    return place(kernel, "tensor" if split == "inputs" else None, "tensor" if split == "outputs" else None)


def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array, split: Split) -> jax.Array:
    y = place_rows(multiply(x, _placed(kernel.astype(x.dtype), split)), "tensor" if split == "outputs" else None)
    return y + bias.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array, split: Split = None) -> jax.Array:
    """`x @ kernel + bias`, `[..., outputs]`, of `x [..., inputs]`, in whose dtype the product is computed.

    With `split` the devices along `tensor` share the work: each has some of the outputs, or adds up some of the inputs,
    and then the sum of all is taken. Either way `x` and the result are split by rows.
    """
    return _affine(x, kernel, bias, split)


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array, split: Split) -> tuple[jax.Array, tuple]:
    # Not `affine` again: what `jax.checkpoint` is to keep has to be seen as a product.
    return _affine(x, kernel, bias, split), (x, kernel, bias)


def _affine_backward(split: Split, saved: tuple, outer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, bias = saved
    flat_x, flat_outer = x.reshape(-1, x.shape[-1]), outer.reshape(-1, outer.shape[-1])
    inner = multiply(outer, _placed(kernel.astype(outer.dtype), split), "...o,io->...i").astype(x.dtype)
    return (
        place_rows(inner, "tensor" if split == "inputs" else None),
        _kernel_gradient(flat_x, flat_outer).astype(kernel.dtype),
        _sum_rows(flat_outer).astype(bias.dtype),
    )


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def project_to_heads(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`affine` to `[rows, length, parts, heads, head_dim]`, of `x [rows, length, hidden]` and a kernel `[hidden, parts,
    heads, head_dim]`; the devices along `tensor` share the heads.

    For TPUs, whose memory is laid out in tiles of 128 features: a matrix that is reshaped afterwards is copied twice
    forward and twice backward, a seventh of a step of BERT-base by the compiler's estimate. A CPU takes longer so.
    """
    return _project(x, kernel, bias)


def _project(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    y = multiply(x, place(kernel.astype(x.dtype), None, None, "tensor", None), "rlh,hpnd->rlpnd")
    return place(y, "rows", None, None, "tensor", None) + bias.astype(x.dtype)


def _project_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple]:
    return _project(x, kernel, bias), (x, kernel, bias)


def _project_backward(saved: tuple, outer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, bias = saved
    placed = place(kernel.astype(outer.dtype), None, None, "tensor", None)
    ones = jnp.ones(outer.shape[:2], outer.dtype)
    asked = {"precision": precision_of(outer), "preferred_element_type": jnp.float32}
    return (
        place_rows(multiply(outer, placed, "rlpnd,hpnd->rlh").astype(x.dtype)),
        jnp.einsum("rlh,rlpnd->hpnd", x, outer, **asked).astype(kernel.dtype),
        jnp.einsum("rl,rlpnd->pnd", ones, outer, **asked).astype(bias.dtype),
    )


project_to_heads.defvjp(_project_forward, _project_backward)


_MOST_LOGITS = 2**27  # of a device at a time: 512 MiB


@jax.custom_vjp
def decoder_cross_entropy(x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array) -> jax.Array:
    """The cross-entropy of `softmax(x @ table^T + bias)` with `labels`, in float32.

    Logits are computed for so many tokens at a time as leave no more than 512 MiB of them on a device. Kept for the way
    back are not they but their gradients, `softmax - one_hot`, in the dtype of `x`: these are known as soon as the
    logits are, but for the gradient of each loss, which multiplies them afterwards. So nothing is computed twice.

    Along the mesh's `tensor` axis the logits stay split by words, and only sums over them are exchanged (Shoeybi et al.
    2019, https://arxiv.org/abs/1909.08053, section 3).

    Args:
      x: `[rows, n, hidden]`; its dtype is what the products compute in.
      table: `[vocabulary, hidden]`, bias `[vocabulary]`.
      labels: `[rows, n]`, numbers of rows of the table.

    Returns:
      `[rows, n]`.
    """
    return _cross_entropy_forward(x, table, bias, labels)[0]


def _parts(x: jax.Array, vocabulary: int) -> int:
    """How many parts of each row's tokens the logits of `x [rows, n, hidden]` are computed in."""
    rows, tokens, _ = x.shape
    if platform() == "cpu" and x.dtype == jnp.bfloat16:
        return 1  # XLA has no sum over two axes of products of bfloat16 there
    logits = -(-rows // row_shards()) * tokens * -(-vocabulary // axis_size("tensor"))
    return min(-(-logits // _MOST_LOGITS), tokens)


def _in_parts(x: jax.Array, parts: int) -> jax.Array:
    """`[rows, n, ...]` to `[parts, rows * m, ...]`, with zeros at the end of each row where `parts` do not divide n; or
    to `[rows * n, ...]` where all is one part.

    Parts of rows, since these are split over the mesh, and tokens are not.
    """
    rows, tokens, *rest = x.shape
    if parts == 1:
        return x.reshape(rows * tokens, *rest)
    size = -(-tokens // parts)
    x = jnp.pad(x, ((0, 0), (0, size * parts - tokens), *[(0, 0)] * len(rest)))
    return x.reshape(rows, parts, size, *rest).swapaxes(0, 1).reshape(parts, rows * size, *rest)


def _whole(x: jax.Array, parts: int, rows: int, tokens: int) -> jax.Array:
    """What `_in_parts` was given."""
    rest = x.shape[1 if parts == 1 else 2 :]
    if parts == 1:
        return x.reshape(rows, tokens, *rest)
    return x.reshape(parts, rows, -1, *rest).swapaxes(0, 1).reshape(rows, -1, *rest)[:, :tokens]


def _cross_entropy_forward(
    x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple]:
    words, bias_of_words = split_vocabulary(table.astype(x.dtype)), place(bias, "tensor")

    def losses_and_gradients(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, labels = part
        asked = {"precision": precision_of(x), "preferred_element_type": jnp.float32}
        product = jnp.einsum("nh,vh->nv", x, words, **asked)
        logits = place(product, "rows", "tensor") + bias_of_words
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        is_label = jnp.arange(logits.shape[1]) == labels[:, None]
        if axis_size("tensor") == 1:
            right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        else:  # a sum, to which every device adds those that it has
            right = jnp.where(is_label, logits, 0).sum(axis=1)
        return normaliser - right, (jnp.exp(logits - normaliser[:, None]) - is_label).astype(x.dtype)

    parts = _parts(x, len(table))
    split = _in_parts(x, parts), _in_parts(labels, parts)
    losses, gradients = losses_and_gradients(split) if parts == 1 else jax.lax.map(losses_and_gradients, split)
    return _whole(losses, parts, *labels.shape), (split[0], table, bias, gradients)


def _cross_entropy_backward(saved: tuple, outer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    x, table, bias, gradients = saved
    parts = 1 if x.ndim == 2 else len(x)
    each = _in_parts(outer, parts)[..., None]
    of_x = (multiply(gradients, split_vocabulary(table.astype(x.dtype))) * each).astype(x.dtype)
    return (
        place_rows(_whole(of_x, parts, *outer.shape)),
        join_vocabulary(_kernel_gradient((x * each).astype(x.dtype), gradients).T).astype(table.dtype),
        place(_sum_weighted(each, gradients), "tensor").astype(bias.dtype),
        None,
    )


decoder_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
