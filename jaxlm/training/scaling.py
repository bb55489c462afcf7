"""What each chip sends in a step on larger machines, from programs compiled for them: `compile --scaling`."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

from jaxlm.config import Config
from jaxlm.console import Console
from jaxlm.errors import UserError
from jaxlm.parallel.collectives import collectives
from jaxlm.parallel.mesh import mesh_over
from jaxlm.parallel.topologies import describe, read_name
from jaxlm.training.machine_report import StepSizes
from jaxlm.training.setup import set_up
from jaxlm.training.stand_in import stand_in

_SHAPES = ("2x2x2", "4x4x4", "4x8x8", "8x8x16")  # 8, 64, 256 and 1,024 chips
_ROWS_PER_CHIP = 32


def _meshes(chips: int, width: int) -> Iterator[tuple[int, int]]:
    """(fsdp, tensor): data alone; as much fsdp as divides the width; and a mixture."""
    yield 1, 1
    yield math.gcd(chips, width), 1
    yield 4, 2


def scaling_table(config: Config, kind: str, folder: Path, console: Console) -> None:
    """Prints a Markdown table: bytes that each chip sends in a step, by axis of the mesh, with as many rows a chip.

    Args:
      config: of one run; its batch size is set to 32 examples a chip.
      kind: of TPU, v4 or v5p, whose slices have three dimensions and up to thousands of chips.

    Raises:
      UserError: `kind` is another.
    """
    if kind not in ("v4", "v5p"):
        raise UserError(f"--scaling compiles for up to 1024 linked chips, which v4 and v5p have; {kind} has not")
    console.say("| chips | mesh | MiB sent by each chip in a step | along |")
    console.say("|---|---|---|---|")
    for shape in _SHAPES:
        topology = describe(read_name(f"{kind}:{shape}"))
        chips = len(topology.devices)
        train = dataclasses.replace(config.train, batch_size=_ROWS_PER_CHIP * chips)
        place = folder / shape
        place.mkdir()
        found = stand_in(dataclasses.replace(config, train=train), place, data_is_given=False)
        width = set_up(found.config, mesh_over(topology.devices)).bert_config.hidden_size
        for fsdp, tensor in _meshes(chips, width):
            mesh = mesh_over(topology.devices, fsdp, tensor)
            sizes = StepSizes(set_up(found.config, mesh), topology, 0, found.scale)
            program = sizes.compile(sizes.rows)
            if program.text is None:
                raise UserError(f"--scaling: the program for {chips} chips does not fit")
            moved = collectives(program.text, mesh.shape)
            axes = dict.fromkeys(item.axes for item in moved)
            sent = {
                " and ".join(along): sum(item.sent * (item.times or 1) for item in moved if item.axes == along) / 2**20
                for along in axes
            }
            listing = ", ".join(f"{name} {size:,.0f}" for name, size in sorted(sent.items(), key=lambda item: -item[1]))
            names = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
            console.say(f"| {chips} | {names} | {sum(sent.values()):,.0f} | {listing} |")
