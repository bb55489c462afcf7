"""Weight files as Hugging Face writes them: `model.safetensors`, or several and an index that says what is where.

Tensors are asked for one parameter at a time, so that a host never holds more of a model than one file.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_SIZE = 5 * 10**9  # bytes


class Source(NamedTuple):
    """What one parameter becomes in a file."""

    shapes: dict[str, tuple[int, ...]]  # by name; of float32
    read: Callable[[], dict[str, np.ndarray]]

    @property
    def size(self) -> int:
        return sum(4 * math.prod(shape) for shape in self.shapes.values())


def whole(value: Any) -> np.ndarray:
    """An array on this host. Every process has to ask for one that is split between processes."""
    if not isinstance(value, jax.Array) or value.is_fully_addressable or value.is_fully_replicated:
        return np.asarray(value)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(value, tiled=True))


def is_writer(params: Any) -> bool:
    """Whether this process writes `params`: its own arrays always, those of several processes if it is the first."""
    shared = any(isinstance(leaf, jax.Array) and not leaf.is_fully_addressable for leaf in jax.tree.leaves(params))
    return not shared or jax.process_index() == 0


def write_weights(directory: Path, sources: Sequence[Source], max_shard_size: int, *, writes: bool = True) -> None:
    """Writes a model's weights: into one file, or, where they have more bytes than `max_shard_size`, several.

    The old weights are there until the new ones are whole, or none are: never some of both. A parameter that is larger
    than `max_shard_size` has a file of its own.

    Args:
      writes: False only reads the sources, as a process does that helps another to gather them.
    """
    shards = _plan(sources, max_shard_size)
    names = [SINGLE]
    if len(shards) > 1:
        names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    if writes:
        directory.mkdir(parents=True, exist_ok=True)
        if len(shards) > 1:  # the old index may name files that are about to be replaced
            (directory / INDEX).unlink(missing_ok=True)
    for name, shard in zip(names, shards, strict=True):
        tensors: dict[str, np.ndarray] = {}
        for source in shard:
            found = source.read()
            if writes:
                tensors |= found
        if writes:
            _write_safetensors(directory / name, tensors)
    if not writes:
        return
    if len(shards) > 1:
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for s in shard for tensor in s.shapes}
        metadata = {"total_size": sum(source.size for source in sources)}
        index = {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
        replace_file(directory / INDEX, json.dumps(index, indent=2) + "\n")
        (directory / SINGLE).unlink(missing_ok=True)
    else:
        (directory / INDEX).unlink(missing_ok=True)
    for old in directory.glob("model-*-of-*.safetensors"):
        if old.name not in names:
            old.unlink()


def _plan(sources: Sequence[Source], max_shard_size: int) -> list[list[Source]]:
    """The sources of each file, in their order."""
    shards: list[list[Source]] = [[]]
    room = max_shard_size
    for source in sources:
        if shards[-1] and source.size > room:
            shards.append([])
            room = max_shard_size
        shards[-1].append(source)
        room -= source.size
    return shards


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    _replace(partial, path)


def replace_file(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader, or a crash, sees the old one or the new. (This package needs no other.)"""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    _replace(partial, path)


def _replace(partial: Path, path: Path) -> None:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
