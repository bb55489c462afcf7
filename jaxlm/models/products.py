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

from jaxlm.models.placement import axis_size, place, place_rows, platform
from jaxlm.models.vocabulary import join_vocabulary, split_vocabulary

Split = Literal["inputs", "outputs"] | None  # what of a kernel is split over the mesh's `tensor` axis


def _sum_rows(x: jax.Array) -> jax.Array:
    """The sum over the first axis of `[n, m]`, as a product."""
    return jnp.einsum("n,nm->m", jnp.ones(x.shape[0], x.dtype), x, preferred_element_type=jnp.float32)


def _kernel_gradient(x: jax.Array, outer: jax.Array) -> jax.Array:
    """`x^T @ outer`, `[inputs, outputs]`, by transposing the narrower of `x [n, inputs]` and `outer [n, outputs]`."""
    if x.shape[1] <= outer.shape[1]:
        return jax.lax.dot_general(x, outer, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return jax.lax.dot_general(outer, x, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32).T


def multiply(x: jax.Array, kernel: jax.Array, subscripts: str = "...i,io->...o") -> jax.Array:
    """The product of `x` and `kernel` in the dtype of `x`.

    On a CPU it is asked for in float32 and then rounded: XLA has the processor's bfloat16 instructions (AMX) for no
    other product of bfloat16, which are four times as fast there.
    """
    on_cpu = {"preferred_element_type": jnp.float32} if platform() == "cpu" else {}
    return jnp.einsum(subscripts, x, kernel, **on_cpu).astype(x.dtype)


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
    return (
        place_rows(multiply(outer, placed, "rlpnd,hpnd->rlh").astype(x.dtype)),
        jnp.einsum("rlh,rlpnd->hpnd", x, outer, preferred_element_type=jnp.float32).astype(kernel.dtype),
        jnp.einsum("rl,rlpnd->pnd", ones, outer, preferred_element_type=jnp.float32).astype(bias.dtype),
    )


project_to_heads.defvjp(_project_forward, _project_backward)


def _logits(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    words = split_vocabulary(table.astype(x.dtype))
    logits = jnp.einsum("nh,vh->nv", x, words, preferred_element_type=jnp.float32)
    return place(logits, "rows", "tensor") + place(bias, "tensor")


@jax.custom_vjp
def decoder_cross_entropy(x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array) -> jax.Array:
    """The cross-entropy of `softmax(x @ table^T + bias)` with `labels`, in float32.

    Along the mesh's `tensor` axis the logits stay split by words, and only sums over them are exchanged (Shoeybi et al.
    2019, https://arxiv.org/abs/1909.08053, section 3).

    Args:
      x: `[n, hidden]`, one row of the batch after the other; its dtype is what the products compute in.
      table: `[vocabulary, hidden]`, bias `[vocabulary]`.
      labels: `[n]`, numbers of rows of the table.

    Returns:
      `[n]`.
    """
    return _cross_entropy_forward(x, table, bias, labels)[0]


def _cross_entropy_forward(
    x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple]:
    logits = _logits(x, table, bias)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    if axis_size("tensor") == 1:
        right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    else:  # a sum, to which every device adds those that it has
        right = jnp.where(jnp.arange(logits.shape[1]) == labels[:, None], logits, 0).sum(axis=1)
    return normaliser - right, (x, table, bias, labels, logits, normaliser)


def _cross_entropy_backward(saved: tuple, outer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    x, table, bias, labels, logits, normaliser = saved
    columns = jnp.arange(logits.shape[1])
    probabilities = jnp.exp(logits - normaliser[:, None])
    gradient = ((probabilities - (columns == labels[:, None])) * outer[:, None]).astype(x.dtype)
    return (
        place(multiply(gradient, split_vocabulary(table.astype(x.dtype))), "rows", None),
        join_vocabulary(_kernel_gradient(x, gradient).T).astype(table.dtype),
        place(_sum_rows(gradient), "tensor").astype(bias.dtype),
        None,
    )


decoder_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
