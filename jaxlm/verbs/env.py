"""`python -m jaxlm env`: what a bug report needs."""

import os
import sys

from jaxlm.config import MeshSettings
from jaxlm.errors import UserError
from jaxlm.startup import start_jax


def run(arguments: list[str]) -> int:
    if arguments:
        raise UserError("env takes no flags")
    import platform
    from importlib.metadata import PackageNotFoundError, version

    start_jax(MeshSettings(), sys.stderr)
    import jax

    import jaxlm
    from jaxlm.parallel.mesh import set_up_compilation_cache

    cache = set_up_compilation_cache()
    if jax.process_index() != 0:
        return 0
    print(f"jaxlm {jaxlm.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "transformers",
                 "safetensors", "tensorflow-datasets", "tyro", "libtpu", "jax-cuda13-plugin", "torch"):  # fmt: skip
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name} not installed")
    print(f"cores {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    for device in jax.local_devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        print(
            f"device {device.id}: {device.platform} {device.device_kind}"
            + (f", {memory / 2**30:.1f} GiB" if memory else "")
        )
    print(f"processes {jax.process_count()}, devices {jax.device_count()}; compilation cache {cache}")
    for name, value in sorted(os.environ.items()):
        if name.startswith(("JAX_", "XLA_", "JAXLM_", "LIBTPU_", "CUDA_VISIBLE")) or name == "HF_HUB_OFFLINE":
            print(f"{name}={value}")
    return 0
