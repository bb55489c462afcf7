"""Programs compiled for machines that are not there: what they need, and whether it fits."""

import math
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxlm.atomic import write_atomically
from jaxlm.parallel.cycles import estimated_cycles
from jaxlm.parallel.mesh import in_context

GIB = 2**30


class Memory(NamedTuple):
    """Bytes of one device, as the compiler counts them."""

    arguments: int  # state and batch
    outputs: int  # those that do not take an argument's place, as a donated state's successor does
    temporaries: int
    program: int

    @property
    def needed(self) -> int:
        return sum(self)


class Program(NamedTuple):
    """What became of a compilation."""

    compiled: jax.stages.Compiled | None  # None: the compiler found that it does not fit
    memory: Memory | None  # None: likewise
    text: str | None  # HLO after all optimisations, for one device; None: likewise
    needed: int  # bytes of one device
    cycles: int | None = None  # of a run, by the compiler's estimate; None: it gives none


def compile_ahead(step: jax.stages.Wrapped, arguments: tuple[Any, ...], mesh: Mesh, platform: str) -> Program:
    """Compiles `step` for the shapes and shardings of `arguments` on another platform than this process runs on.

    Args:
      arguments: `jax.ShapeDtypeStruct`s; the step's shardings are over `mesh`, of the machine's devices.
      platform: "tpu" or "cuda".
    """
    with in_context(mesh):  # a kernel is lowered for the GPU that it finds in the mesh
        lowered = step.trace(*arguments).lower(lowering_platforms=(platform,))
    with tempfile.TemporaryDirectory() as folder:
        # A TPU's compiler writes the text itself: it may be newer than jaxlib, which then cannot read its programs.
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if platform == "tpu" else None
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if (needed := bytes_wanted(str(error))) is None:
                raise
            return Program(None, None, None, needed)
        written = {path.name.split(".")[-2]: path for path in Path(folder).glob("*.after_*.txt")}
        text = written["after_optimizations"].read_text() if platform == "tpu" else compiled.as_text()
        cycles = estimated_cycles(written["after_codegen"].read_text()) if "after_codegen" in written else None
    counted = compiled.memory_analysis()
    memory = Memory(
        counted.argument_size_in_bytes,
        counted.output_size_in_bytes - counted.alias_size_in_bytes,
        counted.temp_size_in_bytes,
        counted.generated_code_size_in_bytes,
    )
    return Program(compiled, memory, text, memory.needed, cycles)


def bytes_wanted(message: str) -> int | None:
    """How much memory a program needs by the compiler's refusal of it; None where that is no refusal for memory.

    What the TPU's compiler calls temporaries there has arguments and outputs in it.
    """
    used = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    found = used or re.search(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)", message)
    return None if found is None else round(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


def shard_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    """Bytes of what one device has of an array."""
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


def save(compiled: jax.stages.Compiled, path: Path) -> None:
    """Writes an executable for `load`."""
    from jax.experimental import serialize_executable

    write_atomically(path, pickle.dumps(serialize_executable.serialize(compiled)))


def load(path: Path) -> jax.stages.Compiled:
    """An executable that `save` wrote, on the machine that it was compiled for, by the same versions of jax and
    compiler. Reading such a file runs what it holds: only from whom you trust."""
    from jax.experimental import serialize_executable

    return serialize_executable.deserialize_and_load(*pickle.loads(path.read_bytes()))
