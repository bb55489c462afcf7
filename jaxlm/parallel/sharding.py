"""Which axis of which parameter is split over which axis of the mesh: one table, and what follows from it.

Optimizer state follows its parameters by name. Every mesh holds arrays of the same shapes, so that checkpoints and
saved models know nothing of the mesh. What the axes mean while a step computes is `jaxlm.models.placement`'s to say.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.errors import UserError
from jaxlm.models import BertConfig

# What the axes of a parameter are, by the end of its dotted name; the first rule that matches holds.
PARAMETERS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"embeddings\.word", ("vocabulary", "hidden")),
    (r"embeddings\.position", (None, "hidden")),
    (r"embeddings\.token_type", (None, None)),
    (r"attention\.qkv_kernel", ("hidden", None, "heads", None)),
    (r"attention\.qkv_bias", (None, "heads", None)),
    (r"attention\.output\.kernel", ("heads", "hidden")),
    (r"feed_forward\.up\.kernel", ("hidden", "feed_forward")),
    (r"feed_forward\.up\.bias", ("feed_forward",)),
    (r"feed_forward\.down\.kernel", ("feed_forward", "hidden")),
    (r"mlm\.bias", ("vocabulary",)),
    (r"kernel", ("hidden", None)),  # pooler, transform of the masked-LM head, classifiers
    (r"bias|scale", (None,)),
)
# What is split over what. Along `tensor`, heads and feed-forward units are Megatron's (Shoeybi et al. 2019,
# https://arxiv.org/abs/1909.08053, section 3): a layer's first product splits its outputs, its second its inputs.
MESH_AXES = {"hidden": "fsdp", "heads": "tensor", "feed_forward": "tensor", "vocabulary": "tensor"}


def parameter_spec(name: str, shape: tuple[int, ...], mesh_shape: Mapping[str, int]) -> P:
    """How a parameter is split, or a moment of the optimizer, whose name ends with the parameter's.

    A vocabulary that `tensor` does not divide stays whole, and `tensor` joins `fsdp` in splitting the vectors of the
    words; the bias of each word is then on every device.

    Args:
      name: dotted.
      mesh_shape: sizes of the mesh's axes by name.

    Raises:
      ValueError: no rule matches, or an axis cannot be divided so; `check_model` tells before.
    """
    rule = next((axes for pattern, axes in PARAMETERS if re.search(rf"(^|\.)({pattern})$", name)), None)
    if rule is None or len(rule) != len(shape):
        raise ValueError(f"no rule says how {name} {shape} is split; see jaxlm.parallel.sharding.PARAMETERS")
    split: list[Any] = [None if axis is None else MESH_AXES[axis] for axis in rule]
    if "vocabulary" in rule and shape[0] % mesh_shape["tensor"]:
        split = [None] if len(shape) == 1 else [None, ("tensor", "fsdp")]
    for axis, size in zip(split, shape, strict=True):
        parts = math.prod(mesh_shape[part] for part in ([axis] if isinstance(axis, str) else axis or ()))
        if size % parts:
            raise ValueError(f"{name} {shape} cannot be split {parts} ways along its axis of {size}")
    return P(*split)


def shardings(state: Any, mesh: Mesh) -> Any:
    """Where the leaves of parameters, or of a training state, lie: `NamedSharding`s in the same structure.

    Args:
      state: arrays or `jax.ShapeDtypeStruct`s.
    """

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return NamedSharding(mesh, parameter_spec(name, leaf.shape, mesh.shape) if leaf.ndim else P())

    return jax.tree_util.tree_map_with_path(of, state)


def laid_out(state: Any, mesh: Mesh) -> Any:
    """The shapes of a state with their shardings: what a restored checkpoint, or a compilation, is to have."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings(state, mesh),
    )


def put_params(params: Any, mesh: Mesh) -> Any:
    """Parameters from the host's memory onto the mesh; each device is given its own part of each, and no more."""

    def put(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return jax.tree.map(put, params, shardings(params, mesh))


def check_model(config: BertConfig, mesh: Mesh) -> None:
    """Raises UserError where a model cannot be split over a mesh, or not be computed on its devices."""
    platform = mesh.devices.flat[0].platform
    if config.attention == "fused" and platform not in ("gpu", "cuda", "rocm"):
        raise UserError(f"--model.attention fused is a kernel for GPUs; here it is a {platform}: leave it at xla")
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    for count, what in (
        (config.num_attention_heads, "attention heads"),
        (config.intermediate_size, "units in its feed-forward layers"),
    ):
        if count % tensor:
            raise UserError(f"--mesh.tensor is {tensor}; it must divide the model's {count} {what}")
    if config.hidden_size % fsdp:
        raise UserError(f"--mesh.fsdp is {fsdp}; it must divide the model's width, {config.hidden_size}")
    if config.vocab_size % tensor and config.hidden_size % (fsdp * tensor):
        raise UserError(
            f"--mesh.fsdp {fsdp} x --mesh.tensor {tensor} is {fsdp * tensor}; where --mesh.tensor does not divide the "
            f"vocabulary ({config.vocab_size}), it must divide the model's width, {config.hidden_size}"
        )
