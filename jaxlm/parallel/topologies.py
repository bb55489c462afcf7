"""Machines by name, such as `v5e:4x4` or `h100:8x2`: their devices, to compile for without having them.

A TPU's program comes from its compiler in `libtpu`, a GPU's from JAX's CUDA plugin and NVIDIA's libraries; neither asks
for hardware. What is asked of the machine that compiles is `prepare_environment`, before JAX starts.
"""

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxlm.errors import UserError

# What libtpu asks of a machine when it is loaded, and complains of where it has no TPU: there, any answer will do.
LIBTPU_WITHOUT_TPU = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
_GPU_SHARE = 0.75  # of a GPU's memory, which JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


class _Tpu(NamedTuple):
    chip: str  # as `chips.CHIPS` has it
    dimensions: int  # of the torus
    pod: int  # chips that are linked at most
    memory: float  # GiB of a device that programs can have, as its compiler says where it refuses one
    usual: str  # a few shapes that are for rent


class _Gpu(NamedTuple):
    """What CUDA says of a GPU (`cudaGetDeviceProperties`), as far as the compiler wants to know."""

    chip: str
    capability: tuple[int, int]
    multiprocessors: int
    cores: int  # float32 units of a multiprocessor
    shared: int  # bytes of shared memory of a multiprocessor; a block may have 1 KiB less
    cache: int  # bytes, level 2
    gigahertz: float
    memory: int  # bytes
    bandwidth: int  # bytes/s


_TPUS = {
    "v4": _Tpu("TPU v4", 3, 4096, 30.75, "2x2x1, 2x2x2, 2x2x4, 4x4x4"),
    "v5e": _Tpu("TPU v5 lite", 2, 256, 15.75, "1x1, 2x2, 2x4, 4x4, 8x8, 16x16"),
    "v5p": _Tpu("TPU v5", 3, 8960, 95.73, "2x2x1, 2x2x2, 2x2x4, 4x4x4, 8x8x16"),
    "v6e": _Tpu("TPU v6 lite", 2, 256, 31.24, "1x1, 2x2, 2x4, 4x4, 8x8, 16x16"),
}
_GPUS = {
    "a100": _Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 167936, 41943040, 1.41, 85100068864, 2039040000000),
    "h100": _Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 233472, 52428800, 1.98, 84942979072, 3352320000000),
    "h200": _Gpu("NVIDIA H200", (9, 0), 132, 128, 233472, 52428800, 1.98, 151397597184, 4800000000000),
}


class Topology(NamedTuple):
    """A machine that is not there."""

    name: str
    platform: str  # "tpu" or "cuda": what programs are lowered for
    chip: str
    hosts: int
    devices: Sequence[Any]  # jax.Device, for a mesh; nothing can be put on them
    memory: int  # bytes of a device that a program can have


class Request(NamedTuple):
    """What a person asked for, read without JAX."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def platform(self) -> str:
        return "tpu" if self.kind in _TPUS else "cuda"

    @property
    def devices(self) -> int:
        return math.prod(self.shape)


def read_name(name: str) -> Request:
    """Reads `v5e:4x4` (chips along each side) or `h100:8x2` (GPUs a host, and hosts).

    Raises:
      UserError: there is no such kind, or its shape is not one.
    """
    kind, colon, shape = name.partition(":")
    kinds = [*_TPUS, *_GPUS]
    if kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}"
        raise UserError(f"--topology {name}: {kind!r} is no machine that is known here; {hint}")
    if not colon or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        example = f"{kind}:{_TPUS[kind].usual.split(', ')[1]}" if kind in _TPUS else f"{kind}:8 or {kind}:8x2"
        raise UserError(f"--topology {name}: KIND:SHAPE is meant, such as {example}")
    sides = tuple(int(side) for side in shape.split("x"))
    if kind in _TPUS and len(sides) != _TPUS[kind].dimensions:
        raise UserError(
            f"--topology {name}: a {kind} has {_TPUS[kind].dimensions} dimensions, not {len(sides)}; usual shapes are "
            f"{_TPUS[kind].usual}"
        )
    if kind in _TPUS and math.prod(sides) > _TPUS[kind].pod:
        raise UserError(f"--topology {name}: no more than {_TPUS[kind].pod} chips of a {kind} are linked")
    if kind in _GPUS and len(sides) > 2:
        raise UserError(f"--topology {name}: GPUs a host and hosts are meant, such as {kind}:8x2")
    return Request(name, kind, sides)


def prepare_environment(request: Request) -> None:
    """Sets what the compilers read when they are loaded; to be called before JAX is imported.

    Raises:
      UserError: the compiler is not installed.
    """
    defaults = {"JAX_PLATFORMS": "cpu"}  # what runs here runs on the CPU, and no accelerator is looked for
    if request.platform == "tpu":
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(f"--topology {request.name} needs the TPU compiler: pip install 'jaxlm[aot]' (or libtpu)")
        defaults |= LIBTPU_WITHOUT_TPU | {
            "TPU_SKIP_MDS_QUERY": "1",  # else it asks Google Cloud for minutes which TPU this is
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nobody's TPU is taken: others may compile at the same time
        }
    else:
        plugins = [name for name in ("jax_cuda13_plugin", "jax_cuda12_plugin") if importlib.util.find_spec(name)]
        if not plugins:
            raise UserError(
                f"--topology {request.name} needs the CUDA compiler: pip install 'jaxlm[cuda]' (or 'jax[cuda13]'); "
                "no GPU is needed"
            )
        defaults |= {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def describe(request: Request) -> Topology:
    """The machine's devices, from the compiler; after `prepare_environment`.

    Raises:
      UserError: the compiler knows no such shape.
    """
    return _describe_tpu(request) if request.platform == "tpu" else _describe_gpu(request)


def _describe_tpu(request: Request) -> Topology:
    from jax.experimental import topologies

    tpu = _TPUS[request.kind]
    # A v4's two cores are one device, as JAX has them on the machine itself.
    options = {"chip_config_name": "megacore"} if request.kind == "v4" else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=request.name, **options)
    except Exception as error:  # the compiler's own kinds, for a shape that cannot be built
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--topology {request.name}: {reason} (usual shapes are {tpu.usual})") from None
    devices: Sequence[Any] = found.devices
    hosts = len({device.process_index for device in devices})
    return Topology(request.name, "tpu", tpu.chip, hosts, devices, int(tpu.memory * 2**30))


def _describe_gpu(request: Request) -> Topology:
    from jax.experimental import topologies

    gpu = _GPUS[request.kind]
    devices, hosts = (*request.shape, 1)[:2]
    found = topologies.get_topology_desc(
        request.name, "cuda", target_config=_target(gpu), topology=f"1x{hosts}x{devices}"
    )
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", _GPU_SHARE))
    return Topology(request.name, "cuda", gpu.chip, hosts, found.devices, int(gpu.memory * share))


def _target(gpu: _Gpu) -> str:
    """A GPU as a text of XLA's `GpuTargetConfigProto` (xla/stream_executor/device_description.proto)."""
    facts = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": gpu.shared,
        "shared_memory_per_block_optin": gpu.shared - 1024,
        "threads_per_core_limit": 2048,
        "core_count": gpu.multiprocessors,
        "fpus_per_core": gpu.cores,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": gpu.bandwidth,
        "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.gigahertz,
        "device_memory_size": gpu.memory,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    major, minor = gpu.capability
    lines = [f"  {name}: {value}" for name, value in facts.items()]
    return "\n".join([
        "gpu_device_info {",
        *lines,
        f"  cuda_compute_capability {{ major: {major} minor: {minor} }}",
        "}",
        'platform_name: "CUDA"',
        "dnn_version_info { major: 9 minor: 10 }",
        "runtime_version { major: 12 minor: 8 }",
        f'device_description_str: "{gpu.chip}"',
    ])  # fmt: skip
