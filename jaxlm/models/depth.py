"""Equal layers, one after the other: written out, or as a loop; and what their backward pass keeps of the forward pass.

Parameters stay those of single layers, whichever way they run: checkpoints, optimizer and model files know nothing of
it. A loop compiles one layer instead of all, which takes BERT-large's training step from minutes to half a minute; its
parameters are stacked for it inside the step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxlm.models.config import Remat

# Products of tokens with weights are kept, those of tokens with tokens (attention's, whose results grow with the square
# of the length) are not. What "attention" means, `jaxlm.models.bert.SelfAttention` does by itself.
_KEPT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

Call = Callable[[Any, jax.Array, int | jax.Array], jax.Array]  # layer, x and the layer's number to the next x


def run_layers(
    layers: Sequence[nnx.Module], x: jax.Array, call: Call, *, scan: bool, remat: Remat, first: int = 0
) -> jax.Array:
    """`x = call(layer, x, number)` for each of `layers`, numbered from `first`; the numbers are traced with `scan`.

    Args:
      layers: all of the same structure.
      call: keeps the shape and dtype of `x` if there are several layers and `scan`.
      scan: run them as a `lax.scan`.
      remat: what the backward pass finds: everything that it needs (none), all but attention's scores and weights
        (attention; Korthikanti et al. 2022, arXiv:2205.05198, section 5), `x` and the results of products with weights
        (dots), or `x` alone (full). The rest it computes again (Chen et al. 2016, arXiv:1604.06174).
    """
    if not layers:
        return x
    scan = scan and len(layers) > 1
    if remat not in _KEPT and not scan:
        for number, layer in enumerate(layers, first):
            x = call(layer, x, number)
        return x
    graphdef = nnx.split(layers[0])[0]
    params = [nnx.state(layer) for layer in layers]

    def step(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        return call(nnx.merge(graphdef, layer[0]), x, layer[1]), None

    if remat in _KEPT:  # inside a loop nothing can be merged with the forward pass, from which `prevent_cse` protects
        step = jax.checkpoint(step, prevent_cse=not scan, policy=_KEPT[remat])
    if scan:
        stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *params)
        return jax.lax.scan(step, x, (stacked, jnp.arange(first, first + len(layers))))[0]
    for number, state in enumerate(params, first):
        x = step(x, (state, number))[0]
    return x
