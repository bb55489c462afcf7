"""The training step: a pure function of state and batch, compiled once for the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from jaxlm.parallel.mesh import by_rows, replicated

State = dict[str, Any]  # {"step": int32 scalar, "params": nested dicts, "opt_state": optax's}
Batch = dict[str, jax.Array]
LossSums = Callable[[Any, Batch, jax.Array | None], tuple[jax.Array, jax.Array]]


def initial_state(params: Any, optimizer: optax.GradientTransformation) -> State:
    return {"step": jnp.zeros((), jnp.int32), "params": params, "opt_state": optimizer.init(params)}


def make_train_step(
    graphdef: nnx.GraphDef,
    loss_sums: LossSums,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    micro_batches: int,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """Builds `step(state, batch) -> (state, metrics)`; the state passed in is donated.

    Losses and weights (examples, or masked tokens) are summed over micro-batches and devices, and divided once: the
    step is the same however the batch is split. `metrics` holds `loss`, `weight` and `grad_norm`, all scalars.

    Args:
      loss_sums: `(model, batch, dropout_key) -> (sum of losses, sum of weights)`.
      seed: of dropout; the step's number is folded in, so that a resumed run draws the same masks.
    """

    def sums(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return loss_sums(nnx.merge(graphdef, params), batch, key)

    def gradients(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        (loss, weight), grads = jax.value_and_grad(sums, has_aux=True)(params, batch, key)
        return loss, weight, grads

    def accumulate(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        # Row r goes to micro-batch r % n: each device keeps the rows that it has, and full and short rows mix.
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, micro_batches, *x.shape[1:]), 1, 0), batch)

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients(params, part, key)), None

        zero = jnp.zeros(())
        return jax.lax.scan(add, (zero, zero, jax.tree.map(jnp.zeros_like, params)), parts)[0]

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        compute = gradients if micro_batches == 1 else accumulate
        loss, weight, grads = compute(state["params"], batch, key)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        new = {
            "step": state["step"] + 1,
            "params": optax.apply_updates(state["params"], updates),
            "opt_state": opt_state,
        }
        return new, {"loss": loss / weight, "weight": weight, "grad_norm": optax.tree.norm(grads)}

    whole = replicated(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(whole, by_rows(mesh)), out_shardings=(whole, whole))
