"""The training step: a pure function of state and batch, compiled once for the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxlm.parallel.mesh import by_rows, in_context, replicated

State = dict[str, Any]  # {"step": int32 scalar, "params": nested dicts, "opt_state": optax's}
Batch = dict[str, jax.Array]
LossWeights = Callable[[Batch], jax.Array]
LossSums = Callable[[Any, Batch, jax.Array | None], jax.Array]


def initial_state(params: Any, optimizer: optax.GradientTransformation) -> State:
    return {"step": jnp.zeros((), jnp.int32), "params": params, "opt_state": optimizer.init(params)}


def make_train_step(
    graphdef: nnx.GraphDef,
    loss_weights: LossWeights,
    loss_sums: LossSums,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    seed: int,
    micro_batches: int,
    mesh: Mesh,
    layout: State,
) -> jax.stages.Wrapped:
    """Builds `step(state, batch) -> (state, metrics)`; the state passed in is donated.

    The weights (numbers of examples, or of masked tokens) are added up over the whole batch, and each loss is divided
    by them once: the step is the same however the batch is split over devices and micro-batches. `metrics` holds
    `losses`, their sum `loss`, `weight` (what divided them), `grad_norm` and `learning_rate`.

    Args:
      loss_weights, loss_sums: of the task; see `jaxlm.tasks.base.Task`.
      schedule: the optimizer's learning rate by step, to be told.
      seed: of dropout; the step's number is folded in, so that a resumed run draws the same masks.
      layout: where each leaf of the state lies, `NamedSharding`s over `mesh`.
    """

    split = jax.tree.map(lambda sharding: sharding.spec, layout["params"])
    # Along these axes parameters are whole: each device adds up the gradients of its own micro-batches, and their sum
    # goes over the network once a step. The compiler, left alone, sends those of each micro-batch.
    alone = tuple(axis for axis in ("replica", "data") if micro_batches > 1 and mesh.shape.get(axis, 1) > 1)

    def losses_of(params: Any, batch: Batch, weights: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = loss_sums(nnx.merge(graphdef, params), batch, key) / weights
        return losses.sum(), losses

    def gradients(params: Any, batch: Batch, weights: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        grads, losses = jax.grad(losses_of, has_aux=True)(params, batch, weights, key)
        # Split as the parameters are: no device holds the whole gradient longer than it takes to add it up.
        return losses, jax.lax.with_sharding_constraint(grads, split) if mesh.size > 1 else grads

    def accumulate(params: Any, batch: Batch, weights: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        # Row r goes to micro-batch r % n: each device keeps the rows that it has, and full and short rows mix.
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, micro_batches, *x.shape[1:]), 1, 0), batch)

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients(params, part, weights, key)), None

        total = jax.lax.scan(add, (jnp.zeros(weights.shape), jax.tree.map(jnp.zeros_like, params)), parts)[0]
        return jax.lax.psum(total, alone) if alone else total

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        with in_context(mesh):
            return update(state, batch)

    def update(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        compute = gradients if micro_batches == 1 else accumulate
        if alone:
            compute = jax.shard_map(
                accumulate, in_specs=(P(), P(alone), P(), P()), out_specs=P(), axis_names=set(alone), check_vma=False
            )
        weights = jnp.maximum(loss_weights(batch), 1)  # 0 where a batch happens to mask no token
        losses, grads = compute(state["params"], batch, weights, key)
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        new = {
            "step": state["step"] + 1,
            "params": optax.apply_updates(state["params"], updates),
            "opt_state": opt_state,
        }
        metrics = {
            "loss": losses.sum(), "losses": losses, "weight": weights, "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(schedule(state["step"])),
        }  # fmt: skip
        return new, metrics

    return jax.jit(
        step, donate_argnums=0, in_shardings=(layout, by_rows(mesh)), out_shardings=(layout, replicated(mesh))
    )
