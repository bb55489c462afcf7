"""Where arrays lie while a model computes on a mesh of devices.

A model asks the mesh in whose context it is traced (`jax.set_mesh`, or `jax.sharding.use_abstract_mesh` inside of
`jax.jit`) and takes from it the axes that it knows: rows of a batch are split over `replica`, `data` and `fsdp`; heads,
feed-forward units and the vocabulary over `tensor`. Where there is no mesh, or an axis is not there, nothing happens:
the program is the same as without this file. Only axes of type Auto are taken.
"""

import math

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

_ROWS = ("replica", "data", "fsdp")


def _sizes() -> dict[str, int]:
    mesh = jax.sharding.get_abstract_mesh()
    known = (*_ROWS, "tensor")
    axes = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    return {name: size for name, size, kind in axes if kind == AxisType.Auto and size > 1 and name in known}


def platform() -> str:
    """What the program is for ("cpu", "gpu", "tpu"): the mesh's devices, or the default ones where there is no mesh."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None or device.platform is None else str(device.platform)


def axis_size(name: str) -> int:
    """Devices along an axis of the mesh; 1 where there is none."""
    return _sizes().get(name, 1)


def row_shards() -> int:
    """Parts that the rows of a batch are split into."""
    sizes = _sizes()
    return math.prod(sizes.get(name, 1) for name in _ROWS)


def spec(*axes: str | None) -> P:
    """The mesh's form of `axes`, one for each axis of an array: "rows", "tensor", or None for one that is whole."""
    sizes = _sizes()
    rows = tuple(name for name in _ROWS if name in sizes)
    names = {"rows": rows or None, "tensor": "tensor" if "tensor" in sizes else None, None: None}
    return P(*(names[axis] for axis in axes))


def place(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x`, laid out over the mesh as `spec(*axes)` says; what cannot be divided is padded by the compiler.

    A parameter that comes split over `fsdp` is gathered along it, which is what `fsdp` means: rows are split over the
    same devices.
    """
    return jax.lax.with_sharding_constraint(x, spec(*axes)) if _sizes() else x


def place_rows(x: jax.Array, last: str | None = None) -> jax.Array:
    """`place` for `x [rows, ..., features]`: split by rows, and its features as `last` says."""
    return place(x, "rows", *[None] * (x.ndim - 2), last) if x.ndim > 1 else place(x, last)
