"""The device mesh, and how arrays are laid out on it.

One mesh with the axes `data`, `fsdp` and `tensor`. Today every device is on `data`: batches are split by rows,
parameters are whole on each device. The other axes have size 1 and their place here.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.errors import UserError


def make_mesh(devices: int | None = None) -> Mesh:
    """A mesh over all devices of all processes, or over the first `devices`.

    Raises:
      UserError: more devices are asked for than there are.
    """
    found = jax.devices()
    count = len(found) if devices is None else devices
    if count > len(found):
        raise UserError(f"--mesh.devices is {count}; there are {len(found)} ({found[0].platform})")
    if count % jax.process_count():
        raise UserError(f"--mesh.devices is {count}; it must be a multiple of the {jax.process_count()} processes")
    return mesh_over(found[:count])


def mesh_over(devices: Sequence[jax.Device]) -> Mesh:
    """The mesh over the given devices."""
    return jax.make_mesh(
        (len(devices), 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def by_rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over the `data` axis."""
    return NamedSharding(mesh, P("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of each process's slice of the rows."""
    sharding = by_rows(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def fetch_rows(array: jax.Array) -> np.ndarray:
    """A global array split by rows, whole, on every process's host."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


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
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return place
