"""Matrix products whose gradients are written out, because how they are asked for decides how fast they are.

Automatic differentiation gives the same numbers. It asks for the gradient of a kernel in an order in which XLA on a CPU
first transposes the larger of the two factors, and for that of a bias as a sum over rows, which runs at a fraction of a
product's speed: of a training step of BERT with 4 layers, 256 wide, that was a third. Gradients of gradients work;
forward mode (`jax.jvp`) is not defined.
"""

import jax
import jax.numpy as jnp


def _sum_rows(x: jax.Array) -> jax.Array:
    """The sum over the first axis of `[n, m]`, as a product."""
    return jnp.einsum("n,nm->m", jnp.ones(x.shape[0], x.dtype), x, preferred_element_type=jnp.float32)


def _kernel_gradient(x: jax.Array, outer: jax.Array) -> jax.Array:
    """`x^T @ outer`, `[inputs, outputs]`, by transposing the narrower of `x [n, inputs]` and `outer [n, outputs]`."""
    if x.shape[1] <= outer.shape[1]:
        return jax.lax.dot_general(x, outer, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return jax.lax.dot_general(outer, x, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32).T


def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


@jax.custom_vjp
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`x @ kernel + bias`, `[..., outputs]`, of `x [..., inputs]`, in whose dtype the product is computed."""
    return _affine(x, kernel, bias)


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple]:
    # Not `affine` again: what `jax.checkpoint` is to keep has to be seen as a product.
    return _affine(x, kernel, bias), (x, kernel, bias)


def _affine_backward(saved: tuple, outer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, bias = saved
    flat_x, flat_outer = x.reshape(-1, x.shape[-1]), outer.reshape(-1, outer.shape[-1])
    return (
        (outer @ kernel.astype(outer.dtype).T).astype(x.dtype),
        _kernel_gradient(flat_x, flat_outer).astype(kernel.dtype),
        _sum_rows(flat_outer).astype(bias.dtype),
    )


affine.defvjp(_affine_forward, _affine_backward)


def _logits(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.einsum("nh,vh->nv", x, table.astype(x.dtype), preferred_element_type=jnp.float32) + bias


@jax.custom_vjp
def decoder_cross_entropy(x: jax.Array, table: jax.Array, bias: jax.Array, labels: jax.Array) -> jax.Array:
    """The cross-entropy of `softmax(x @ table^T + bias)` with `labels`, in float32.

    Args:
      x: `[n, hidden]`; its dtype is what the products compute in.
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
    losses = normaliser - jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return losses, (x, table, bias, labels, logits, normaliser)


def _cross_entropy_backward(saved: tuple, outer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    x, table, bias, labels, logits, normaliser = saved
    columns = jnp.arange(logits.shape[1])
    probabilities = jnp.exp(logits - normaliser[:, None])
    gradient = ((probabilities - (columns == labels[:, None])) * outer[:, None]).astype(x.dtype)
    return (
        (gradient @ table.astype(x.dtype)),
        _kernel_gradient(x, gradient).T.astype(table.dtype),
        _sum_rows(gradient).astype(bias.dtype),
        None,
    )


decoder_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
