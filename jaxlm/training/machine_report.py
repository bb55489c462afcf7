"""What a run needs, and what it can reach, on a machine that is not there: the report of `compile`."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from jaxlm.config import Config
from jaxlm.console import Console
from jaxlm.parallel import ahead_of_time
from jaxlm.parallel.ahead_of_time import GIB, Program, compile_ahead, shard_bytes
from jaxlm.parallel.chips import CHIPS, Chip
from jaxlm.parallel.collectives import by_kind_and_axes, collectives
from jaxlm.parallel.mesh import compute_dtype, mesh_over, row_shards
from jaxlm.parallel.topologies import Topology
from jaxlm.training.largest_batch import largest_batch
from jaxlm.training.run import stage_configs
from jaxlm.training.setup import Setup, set_up
from jaxlm.training.stand_in import StandIn, stand_in


def single_runs(config: Config, name: str) -> dict[str, Config]:
    """The programs of a config, by name: one, or with a `pretrain` stage two that share a shape."""
    stage = config.pretrain
    if stage is None:
        return {name: config}
    runs = stage_configs(dataclasses.replace(config, compare_from_scratch=False), Path())
    kept = ("hidden_dropout", "attention_dropout", "dtype", "layers", "remat", "attention")
    model = dataclasses.replace(stage.model, **{item: getattr(config.model, item) for item in kept})
    data = dataclasses.replace(config.data, tokenizer=stage.data.tokenizer, vocab_size=stage.data.vocab_size)
    return runs | {"finetune": dataclasses.replace(runs["finetune"], model=model, data=data)}


class StepSizes:
    """A run's training step in batches of any number of rows."""

    def __init__(self, setup: Setup, topology: Topology, step: int, scale: float):
        self.setup, self._topology = setup, topology
        self._shapes = setup.batch_shapes(step)
        self.row_length = self._shapes["input_ids"].shape[1]
        self.unit = row_shards(setup.mesh) * setup.config.train.micro_batches
        if scale == 1:
            self.rows = self._shapes["input_ids"].shape[0]
        else:
            self.rows = math.ceil(setup.batches["train"].filled_rows(step) * scale / self.unit) * self.unit
        self.tokens = setup.batches["train"].tokens(step) * scale
        self.examples = setup.batches["train"].count(step) * scale

    def compile(self, rows: int) -> Program:
        shapes = {
            name: jax.ShapeDtypeStruct((rows, *shape.shape[1:]), shape.dtype) for name, shape in self._shapes.items()
        }
        arguments = self.setup.abstract_state(), shapes
        return compile_ahead(self.setup.train_step(), arguments, self.setup.mesh, self._topology.platform)


def report(
    config: Config, name: str, topology: Topology, folder: Path, console: Console, *, data_is_given: bool,
    phase: int | None, tokens: int | None, search: bool, save_to: Path | None,
) -> bool:  # fmt: skip
    """Compiles a run's training step for a machine and says what it needs. Returns whether it fits.

    Raises:
      UserError, CheckpointError: settings, data or model are not usable.
    """
    chip = CHIPS[topology.chip]
    mesh = mesh_over(topology.devices, config.mesh.fsdp, config.mesh.tensor)
    with console.phase(f"{name}: reading data and model"):
        found = stand_in(config, folder, data_is_given=data_is_given, tokens=tokens)
        setup = set_up(found.config, mesh)
    number = _step_of(setup, phase)
    sizes = StepSizes(setup, topology, number, found.scale)
    for line in _description(setup, topology, chip, sizes, found, number):
        console.say(f"{name}: {line}")
    with console.phase(f"{name}: compiling for {topology.name}"):
        program = sizes.compile(sizes.rows)
    capacity = topology.memory
    for line in _memory_table(program, sizes, chip, capacity):
        console.say(line)
    fits = program.compiled is not None and program.needed <= capacity
    for line in _work_table(program, sizes, chip):
        console.say(line)
    if search:
        _say_largest(sizes, program, capacity, console, name)
    if not fits:
        console.say(
            f"{name}: does not fit: needs {program.needed / GIB:.2f} GiB of {capacity / GIB:.2f} GiB on each "
            f"{topology.chip}"
        )
    elif save_to is not None and program.compiled is not None:
        ahead_of_time.save(program.compiled, save_to)
        console.say(
            f"{name}: wrote {save_to} ({save_to.stat().st_size / 2**20:.0f} MiB); on the machine itself, with jax "
            f"{jax.__version__}: from jaxlm.parallel.ahead_of_time import load; step = load(Path({str(save_to)!r})); "
            "state, metrics = step(state, batch)"
        )
    return fits


def _step_of(setup: Setup, phase: int | None) -> int:
    """The number of a step of the phase that was asked for, or of the one with most tokens in its rows."""
    batches = setup.batches["train"]
    if phase is not None:
        return batches.starts[phase - 1]
    return max(batches.starts, key=lambda start: math.prod(batches(start)["input_ids"].shape))


def _description(
    setup: Setup, topology: Topology, chip: Chip, sizes: StepSizes, found: StandIn, number: int
) -> Iterator[str]:
    shape, config = setup.bert_config, setup.config
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(setup.abstract_state()["params"]))
    dtype = np.dtype(compute_dtype(config.model.dtype, setup.mesh)).name
    yield (
        f"{setup.task.model_class.__name__}, {shape.num_hidden_layers} layers, {shape.hidden_size} wide, vocabulary "
        f"{shape.vocab_size}, {params / 1e6:.1f} M parameters; {dtype}, layers "
        f"{'as a loop' if shape.scan_layers else 'one by one'}, remat {shape.remat}, "
        f"attention {shape.attention}, {config.optim.optimizer}"
    )
    axes = " x ".join(f"{axis} {size}" for axis, size in setup.mesh.shape.items())
    yield (
        f"{len(topology.devices)} x {topology.chip} ({chip.memory / GIB:.4g} GiB, {chip.flops / 1e12:.0f} TFLOP/s "
        f"each) on {topology.hosts} host(s); mesh {axes}"
    )
    yield from found.assumed
    phases = config.train.phases
    which = ""
    if len(phases) > 1:
        starts = setup.batches["train"].starts
        which = f", phase {list(starts).index(number) + 1} of {len(phases)}"
    yield (
        f"a step of {sizes.examples:.0f} examples, {sizes.tokens:.0f} tokens, in {sizes.rows} rows of "
        f"{sizes.row_length}{which}"
    )


def _memory_table(program: Program, sizes: StepSizes, chip: Chip, capacity: int) -> Iterator[str]:
    yield "  memory of one device, GiB"
    state = sum(shard_bytes(leaf) for leaf in jax.tree.leaves(sizes.setup.abstract_state()))
    rows: list[tuple[str, float]] = [("state: parameters and optimizer", state)]
    if (memory := program.memory) is not None:
        rows += [
            ("batch, and what arguments are padded with", memory.arguments - state),
            ("outputs beside the state's place", memory.outputs),
            ("temporaries", memory.temporaries),
            ("program", memory.program),
        ]
    rows += [("peak", program.needed), (f"usable, of {chip.memory / GIB:.4g}", capacity)]
    for label, value in rows:
        yield f"    {label:44} {value / GIB:8.2f}"


def _work_table(program: Program, sizes: StepSizes, chip: Chip) -> Iterator[str]:
    """What a step computes and moves, and how long the slowest of these takes at the least.

    A roofline (Williams et al. 2009, https://doi.org/10.1145/1498765.1498785): arithmetic, memory traffic and exchange
    each at the chip's peak, as if they overlapped wholly. Traffic counts state and batch read once, what is written of
    them, and temporaries written and read once: a floor, since a temporary's place is used again and again.
    """
    compiled, memory, text = program.compiled, program.memory, program.text
    if compiled is None or memory is None or text is None:
        return
    setup = sizes.setup
    devices = setup.mesh.size
    flops = setup.task.flops(setup.bert_config, sizes.tokens, sizes.examples, sizes.row_length)
    found = collectives(text, setup.mesh.shape)
    state = sum(shard_bytes(leaf) for leaf in jax.tree.leaves(setup.abstract_state()))
    moved = memory.arguments + memory.outputs + state + 2 * memory.temporaries  # the state's successor takes its place
    yield "  a step, of one device"
    yield f"    {'model FLOPs (tokens alone, nothing computed twice)':52} {flops / devices / 1e9:12.1f} GFLOP"
    yield f"    {'memory traffic, at least':52} {moved / GIB:12.2f} GiB"
    for (kind, axes), members in by_kind_and_axes(found).items():
        count = sum(item.times or 1 for item in members)
        at_least = " (in loops of unknown length: at least)" if any(item.times is None for item in members) else ""
        label = f"{kind} along {' and '.join(axes) or 'no axis'}, {count} of them{at_least}: sent"
        sent = sum(item.sent * (item.times or 1) for item in members)
        yield f"    {label:52} {sent / 2**20:12.1f} MiB"
    times = {"arithmetic": flops / devices / chip.flops}
    if chip.bandwidth is not None:
        times["memory"] = moved / chip.bandwidth
    if chip.links is not None:
        times["exchange"] = sum(item.sent * (item.times or 1) for item in found) / chip.links
    slowest = max(times, key=lambda name: times[name])
    listing = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in times.items())
    mfu = times["arithmetic"] / times[slowest]
    yield f"    at the chip's peaks: {listing}"
    yield (
        f"    so at the least {1e3 * times[slowest]:.2f} ms a step ({slowest}): {sizes.tokens / times[slowest]:,.0f} "
        f"tokens/s, MFU at most {mfu:.0%}"
    )
    if program.cycles is None or chip.clock is None:
        yield "    the compiler gives no estimate of its own"
    else:
        seconds = program.cycles / chip.clock
        yield (
            f"    the compiler's own estimate, exchange apart: {1e3 * seconds:.2f} ms, "
            f"MFU {times['arithmetic'] / seconds:.0%}"
        )


def _say_largest(sizes: StepSizes, program: Program, capacity: int, console: Console, name: str) -> None:
    def needed(rows: int) -> int:
        with console.phase(f"{name}: compiling {rows} rows") as remarks:
            size = sizes.compile(rows).needed
            remarks.append(f"{size / GIB:.2f} GiB")
        return size

    found = largest_batch(needed, capacity, sizes.unit, sizes.rows, program.needed)
    if found.fits is None:
        console.say(f"{name}: not even {found.too_many} rows fit")
        return
    limit = "" if found.too_many is None else f"; {found.too_many} do not"
    examples = found.fits * sizes.examples / sizes.rows
    console.say(
        f"{name}: the largest batch that fits: {found.fits} rows of {sizes.row_length} (--train.batch_size "
        f"{math.floor(examples)}){limit}"
    )
