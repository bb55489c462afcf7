"""The communication of a compiled program, read from its text.

`compiled.as_text()` is the program of one device after partitioning: what each collective moves, and between which
devices, stands there. The devices of a group are numbered by their place in the program's device assignment, which is
`mesh.devices.flat`, whatever ids the hardware gave them.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
         "collective-permute", "collective-broadcast")  # fmt: skip

_BITS = {"pred": 8, "token": 0, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "bf16": 16, "c64": 64, "c128": 128}


class Collective(NamedTuple):
    """One exchange between devices."""

    kind: str  # one of KINDS
    bytes: int  # of the whole array, or arrays, that a device has before or after, whichever is more
    axes: tuple[str, ...]  # of the mesh, in its order, along which the devices of a group differ
    group: int  # devices in a group; 2 for collective-permute, whose pairs are one sender and one receiver
    in_loop: bool
    times: int | None  # how often a run of the program does it; None in a loop whose trip count is not stated
    dtype: str  # as XLA writes it: f32, bf16, ...

    @property
    def sent(self) -> int:
        """Bytes that each device sends, once, by a ring (Thakur et al. 2005,
        https://doi.org/10.1177/1094342005051521, tables 1 and 2)."""
        others = (self.group - 1) / self.group
        shares = {"all-reduce": 2 * others, "collective-permute": 1, "collective-broadcast": 1}
        return round(self.bytes * shares.get(self.kind, others))


def collectives(text: str, mesh_shape: Mapping[str, int]) -> list[Collective]:
    """The collectives of a program, in the order of its text.

    Args:
      text: `compiled.as_text()`.
      mesh_shape: axis names and sizes in the mesh's order, `mesh.shape`.

    Raises:
      ValueError: a group of devices is written in a form that is not known here, or is none of the mesh's.
    """
    computations = dict(computations_of(text))
    loops = loops_of(computations)
    found = []
    for name, lines in computations.items():
        times = loops.get(name, Loop(False, 1))
        for line in lines:
            line = re.sub(r"/\*.*?\*/", "", line)  # long tuples have their places numbered: /*index=5*/
            if (match := _COLLECTIVE.search(line)) is None:
                continue
            kind = match["kind"]
            groups = _groups(line, kind, math.prod(mesh_shape.values()))
            operands, results = _shapes(_operands(line, match.end())), _shapes(match["shape"])
            if match["start"] and kind != "all-reduce":  # its result is (operands, results, ...) of the whole exchange
                operands = []
            size = max(sum(map(_bytes, operands)), _largest(results, kind, bool(match["start"])))
            first = (results or operands or [("", "")])[0]
            found.append(
                Collective(kind, size, _axes(groups, mesh_shape), len(groups[0]), times.inside, times.trips, first[0])
            )
    return found


def by_kind_and_axes(found: Sequence[Collective]) -> dict[tuple[str, tuple[str, ...]], list[Collective]]:
    """The collectives that share kind and axes, the kinds in the order of `KINDS`."""
    keys = sorted({(c.kind, c.axes) for c in found}, key=lambda key: (KINDS.index(key[0]), key[1]))
    return {key: [c for c in found if (c.kind, c.axes) == key] for key in keys}


_COLLECTIVE = re.compile(
    rf"= (?P<shape>\(.*?\)|\S+) (?P<kind>{'|'.join(sorted(KINDS, key=len, reverse=True))})(?P<start>-start)?\("
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{\s*$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_OF_A_MESH = re.compile(
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\]"
    r"(?:, device_ids=\((?:\[(?P<sizes>[\d,]+)\]T\((?P<order>[\d,]+)\)|(?P<ids>[\d,]+))\))? \{(?P<chosen>[^}]*)\}"
)
_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")
_CALLED = re.compile(
    r"\b(?:body|condition|to_apply|calls|called_computations|branch_computations|true_computation|false_computation)="
    r"(?:\{([^}]*)\}|(%?[\w.\-]+))"
)


class Loop(NamedTuple):
    inside: bool
    trips: int | None


def computations_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """(name, its instructions) of each computation."""
    name, lines = None, list[str]()
    for line in text.splitlines():
        if name is None:
            if (match := _COMPUTATION.match(line)) and "->" in line:
                name, lines = match[1], []
        elif line.startswith("}"):
            yield name, lines
            name = None
        else:
            lines.append(line)


def loops_of(computations: dict[str, list[str]]) -> dict[str, Loop]:
    """For each computation that is called from somewhere, whether it runs in a loop, and how often in all."""
    callers: dict[str, list[tuple[str, Loop]]] = {}
    for name, lines in computations.items():
        for line in lines:
            loops = " while(" in line
            step = Loop(True, _trips(line, computations)) if loops else Loop(False, 1)
            for several, single in _CALLED.findall(line):
                for called in (several or single).split(","):
                    callers.setdefault(called.strip().lstrip("%"), []).append((name, step))
    known: dict[str, Loop] = {}

    def of(name: str) -> Loop:
        if name not in known:
            calls = [(of(caller), step) for caller, step in callers.get(name, [])]
            counts = [
                None if above.trips is None or step.trips is None else above.trips * step.trips for above, step in calls
            ]
            total = sum(count for count in counts if count is not None)
            trips = None if None in counts else total if calls else 1
            known[name] = Loop(any(above.inside or step.inside for above, step in calls), trips)
        return known[name]

    return {name: of(name) for name in computations}


def _trips(line: str, computations: dict[str, list[str]]) -> int | None:
    """How often a loop runs, as the compiler states it or, for TPUs, as its condition says: counter < constant."""
    if (stated := re.search(r'known_trip_count"?:\s*\{\s*"n":\s*"(\d+)"', line)) is not None:
        return int(stated[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = computations.get(condition[1], []) if condition else []
    last = lines[-1] if lines else ""
    limits = re.findall(r"%?([\w.\-]+) = [su]32\[\]\S* constant\((\d+)\)", "\n".join(lines))
    if len(limits) != 1 or not re.search(rf"compare\(.*, %?{re.escape(limits[0][0])}\), direction=LT", last):
        return None
    return int(limits[0][1])


def _operands(line: str, start: int) -> str:
    """The text between the parentheses that open before `start`."""
    depth = 1
    for end in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[end], 0)
        if depth == 0:
            return line[start:end]
    return line[start:]


def _shapes(text: str) -> list[tuple[str, str]]:
    return _SHAPE.findall(re.sub(r"\{[^}]*\}", "", text))  # without layouts, which hold tiles such as T(8,128)


def _bytes(shape: tuple[str, str]) -> int:
    dtype, sizes = shape
    bits = _BITS.get(dtype) if dtype in _BITS else 8 if dtype.startswith("f8") else int(re.sub(r"\D", "", dtype) or 0)
    return math.prod(int(size) for size in sizes.split(",") if size) * (bits or 0) // 8


def _largest(results: list[tuple[str, str]], kind: str, started: bool) -> int:
    """Bytes of the results; of a started exchange, of operands or results, which stand together in its shape."""
    sizes = list(map(_bytes, results))
    if not started or kind == "all-reduce":
        return sum(sizes)
    arrays = [size for size, (dtype, dims) in zip(sizes, results, strict=True) if not (dtype == "u32" and not dims)]
    half = len(arrays) // 2
    return max(sum(arrays[:half]), sum(arrays[half:]))


def _groups(line: str, kind: str, devices: int) -> np.ndarray:
    """The groups that an instruction names, `[groups, devices of a group]`."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}", line)
        if pairs is None:
            raise ValueError(f"source and target devices are not to be read from {line.strip()[:200]}")
        moved = [pair for pair in _explicit(pairs[1]) if pair[0] != pair[1]]
        return np.array(moved or [[0, 0]])
    if (iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)) is not None:
        shape, sizes = ([int(n) for n in iota[group].split(",")] for group in (1, 2))
        order = [int(n) for n in iota[3].split(",")] if iota[3] else None
        return np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(shape[0], -1)
    if (named := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", line)) is not None:
        rows = _explicit(named[1])
        return np.array(rows) if rows else np.arange(devices)[None]
    if (meshed := _OF_A_MESH.search(line)) is not None:
        return _mesh_groups(meshed)
    raise ValueError(f"devices are not to be read from {line.strip()[:200]}")


def _mesh_groups(match: re.Match[str]) -> np.ndarray:
    """The groups along axes, or parts of axes, of a mesh that XLA made up: `[groups, devices of a group]`.

    `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a','b':(2)2}`: of b, whose 4 are 2 x 2 x 1, the middle factor.
    """
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match["axes"])}
    devices = np.arange(math.prod(axes.values()))
    if match["sizes"]:
        devices = devices.reshape([int(n) for n in match["sizes"].split(",")])
        devices = devices.transpose([int(n) for n in match["order"].split(",")])
    elif match["ids"]:
        devices = np.array([int(n) for n in match["ids"].split(",")])
    chosen = {name: (int(pre or 1), int(size or axes[name])) for name, pre, size in _AXIS.findall(match["chosen"])}
    factors: list[int] = []
    inside: list[int] = []
    outside: list[int] = []
    for name, size in axes.items():
        pre, part = chosen.get(name, (size, 1))
        inside.append(len(factors) + 1)
        outside += [len(factors), len(factors) + 2]
        factors += [pre, part, size // (pre * part)]
    return devices.reshape(factors).transpose(outside + inside).reshape(-1, math.prod(p for _, p in chosen.values()))


def _explicit(text: str) -> list[list[int]]:
    return [[int(n) for n in row.split(",")] for row in re.findall(r"\{([\d,]+)\}", text)]


def _axes(groups: np.ndarray, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which the devices of each group differ."""
    names, sizes = list(mesh_shape), list(mesh_shape.values())
    if groups.max() >= math.prod(sizes):
        raise ValueError(f"device {groups.max()} is none of the mesh's {dict(mesh_shape)}")
    places = np.stack(np.unravel_index(groups, sizes))  # [axes, groups, devices of a group]
    differ = (places != places[:, :, :1]).any((1, 2))
    return tuple(itertools.compress(names, differ))
