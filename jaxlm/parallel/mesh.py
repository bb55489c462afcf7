"""The device mesh, and how batches are laid out on it.

One mesh with the axes `data`, `fsdp` and `tensor`, and outside them `replica` where the devices lie in several slices.
Rows of a batch are split over `replica`, `data` and `fsdp` together; along `tensor`, several devices share the work on
the same rows. Where parameters lie is `jaxlm.parallel.sharding`'s to say.
"""

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.config import Dtype, MeshSettings
from jaxlm.errors import UserError
from jaxlm.parallel.chips import CHIPS

ROW_AXES = ("replica", "data", "fsdp")


def make_mesh(devices: int | None = None, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all devices of all processes, or over `devices` of them, as many of each process.

    Args:
      fsdp: devices over which parameters and optimizer state are split, and rows too.
      tensor: devices that share heads, feed-forward layers and vocabulary.

    Raises:
      UserError: there are not so many devices, or they cannot be divided so.
    """
    for name, value in (("devices", devices), ("fsdp", fsdp), ("tensor", tensor)):
        if value is not None and value < 1:
            raise UserError(f"--mesh.{name} is {value}; it must be at least 1")
    found, processes = jax.devices(), jax.process_count()
    count = len(found) if devices is None else devices
    if count > len(found):
        raise UserError(f"--mesh.devices is {count}; there are {len(found)} ({found[0].platform})")
    if count % processes:
        raise UserError(f"--mesh.devices is {count}; it must be a multiple of the {processes} processes")
    if count < len(found):
        share = count // processes
        by_process = [[d for d in found if d.process_index == process] for process in range(processes)]
        if (fewest := min(map(len, by_process))) < share:
            raise UserError(f"--mesh.devices is {count}, {share} a process; one has only {fewest}")
        found = [device for local in by_process for device in local[:share]]
    return mesh_over(found, fsdp, tensor)


def mesh_for(settings: MeshSettings) -> Mesh:
    """The mesh that the settings ask for; raises what `make_mesh` does."""
    return make_mesh(settings.devices, settings.fsdp, settings.tensor)


def mesh_over(devices: Sequence[jax.Device], fsdp: int = 1, tensor: int = 1) -> Mesh:
    """The mesh over the given devices, which may be those of a topology; raises what `arrange` does."""
    array, names = arrange(devices, fsdp, tensor)
    return Mesh(array, names, axis_types=(AxisType.Auto,) * len(names))


def arrange(devices: Sequence[Any], fsdp: int = 1, tensor: int = 1) -> tuple[np.ndarray, tuple[str, ...]]:
    """Devices in the order of a mesh, and the names of its axes.

    The innermost axes talk most, and lie closest: `tensor` exchanges activations in every layer, `fsdp` parameters,
    `data` gradients once a step. Where the devices say (`slice_index`) that they are in several slices, with a slow
    network between, `replica` numbers the slices, and all other axes stay within one.

    Raises:
      UserError: fsdp x tensor does not divide the devices, or those of a slice, or the slices differ in size.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    sizes = {len(members) for members in slices.values()}
    several = len(slices) > 1
    if len(sizes) > 1:
        listing = ", ".join(f"{len(slices[index])} in slice {index}" for index in sorted(slices))
        raise UserError(f"the slices differ in size ({listing}); choose --mesh.devices so that each gives as many")
    size = sizes.pop()
    if size % (fsdp * tensor):
        whose = f"each of the {len(slices)} slices has {size} devices" if several else f"there are {size} devices"
        raise UserError(
            f"--mesh.fsdp {fsdp} x --mesh.tensor {tensor} is {fsdp * tensor}; {whose}, not a multiple of it"
        )
    shape = (size // (fsdp * tensor), fsdp, tensor)
    # An axis of the mesh may be a part of one of the torus, as where there are 4 x 4 x 4 chips for 8 x 4 x 2.
    split = devices[0].platform == "tpu"
    arrays = [
        mesh_utils.create_device_mesh(shape, slices[index], allow_split_physical_axes=split) for index in sorted(slices)
    ]
    if several:
        return np.stack(arrays), ("replica", "data", "fsdp", "tensor")
    return arrays[0], ("data", "fsdp", "tensor")


def describe(mesh: Mesh) -> str:
    """The mesh for a person: `data 2 x fsdp 4`, or what of it is more than 1."""
    parts = [f"{name} {size}" for name, size in mesh.shape.items() if size > 1]
    return " x ".join(parts) or "one device"


def row_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which rows are split."""
    return tuple(name for name in ROW_AXES if name in mesh.axis_names)


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[name] for name in row_axes(mesh))


def in_context(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """For the body of a function under `jax.jit`: models find this mesh, and place their activations on it."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def by_rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over `replica`, `data` and `fsdp`."""
    return NamedSharding(mesh, P(row_axes(mesh)))


def row_owners(processes: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Which rows each process reads, given where its devices lie.

    Processes whose devices hold the same parts of the rows, as along `tensor`, read the same. A batch is cut into one
    slice for each such group of processes, in the order of the first part that each holds; a slice's parts need not lie
    next to each other on the mesh (a host of a TPU has 2 x 2 of its chips).

    Args:
      processes: the process of each device, `[parts of the rows, devices that hold each]`.

    Returns:
      The mesh's parts of the rows in the order in which a batch, slice after slice, has them; and the slice of each
      process, `[processes]`, -1 for one without devices.

    Raises:
      UserError: two processes hold some parts in common and others not, so that no slices can be cut.
    """
    parts: dict[int, list[int]] = {}
    for part, holders in enumerate(processes):
        for process in sorted(set(holders.tolist())):
            parts.setdefault(process, []).append(part)
    slices = sorted({tuple(held) for held in parts.values()})
    order = [part for held in slices for part in held]
    if sorted(order) != list(range(len(processes))) or len({len(held) for held in slices}) > 1:
        raise UserError(
            "the mesh does not divide the rows evenly between processes: choose --mesh.tensor so that it divides the "
            "devices of a process, or is a multiple of them"
        )
    owner = np.full(max(parts) + 1, -1)
    for process, held in parts.items():
        owner[process] = slices.index(tuple(held))
    return order, owner


def _owners(mesh: Mesh) -> tuple[list[int], np.ndarray]:
    return row_owners(np.array([d.process_index for d in mesh.devices.flat]).reshape(row_shards(mesh), -1))


def row_slice(mesh: Mesh) -> tuple[int, int]:
    """(i, n): of the rows of a batch, cut into n slices, this process reads the i-th."""
    if jax.process_count() == 1:  # also where the mesh is of a machine that is not here
        return 0, 1
    _, owner = _owners(mesh)
    return int(owner[jax.process_index()]), int(owner.max()) + 1


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of each process's slice of the rows."""
    sharding = by_rows(mesh)
    if not mesh.is_multi_process:
        return jax.device_put(batch, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def fetch_rows(array: jax.Array) -> np.ndarray:
    """A global array split by rows, whole and in the order of the batch, on every process's host."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    rows = np.asarray(multihost_utils.process_allgather(array, tiled=True))
    mesh = array.sharding.mesh if isinstance(array.sharding, NamedSharding) else None
    if not isinstance(mesh, Mesh):
        raise TypeError(f"an array over a mesh is meant, not one of {array.sharding}")
    order, _ = _owners(mesh)
    return rows.reshape(len(order), -1, *rows.shape[1:])[order].reshape(rows.shape)


def compute_dtype(setting: Dtype, mesh: Mesh) -> Any:
    """`auto` is bfloat16 where the hardware multiplies it (TPUs, GPUs since A100) and float32 elsewhere."""
    if setting == "auto":
        device = mesh.devices.flat[0]
        chip = CHIPS.get(device.device_kind)
        lacks_it = device.platform == "cpu" or (chip is not None and "bfloat16" not in chip.dtypes)
        return jnp.float32 if lacks_it else jnp.bfloat16
    return jnp.dtype(setting)


def tokens_at_once(mesh: Mesh) -> int:
    """What is computed at once where no gradients are kept: a device is busy, and a CPU's caches hold it."""
    return row_shards(mesh) * (1 << 11 if mesh.devices.flat[0].platform == "cpu" else 1 << 15)


def device_memory_bytes() -> int | None:
    """The most memory a device of this process has used so far; None where the platform does not tell (CPU)."""
    stats: dict[str, Any] | None = jax.local_devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


def set_up_compilation_cache() -> str:
    """Points JAX at a persistent cache of compiled programs; to be called before the first array is made.

    `JAX_COMPILATION_CACHE_DIR` overrides the place. Returns it.
    """
    default = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "jaxlm", "xla")
    place = os.environ.get("JAX_COMPILATION_CACHE_DIR", default)
    jax.config.update("jax_compilation_cache_dir", place)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Not the smallest: the place may be a bucket, which takes longer to answer than they to compile.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return place
