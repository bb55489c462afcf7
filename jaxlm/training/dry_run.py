"""`--dry_run`: every part of the road once, in a scratch directory, and what the real run would take."""

import contextlib
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlm.config import Config
from jaxlm.console import Console, duration
from jaxlm.models.hub import resolve
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import device_memory_bytes, mesh_for, put_batch
from jaxlm.training.checkpoint import Checkpoints
from jaxlm.training.evaluation import Evaluator
from jaxlm.training.loop import write_model
from jaxlm.training.run import prepare, stage_configs

_TIMED_STEPS = 2


def dry_run(config: Config, name: str, console: Console) -> None:
    """Walks the road of a config, pre-training and twin included, and leaves nothing behind."""
    mesh = mesh_for(config.mesh)
    with contextlib.ExitStack() as cleanup:
        workdir = _scratch(config, cleanup)
        runs = {name: config} if config.pretrain is None else stage_configs(config, workdir)
        seconds = sum(
            _walk(stage, workdir / stage_name, mesh, console, stage_name) for stage_name, stage in runs.items()
        )
        distributed.meet("scratch directory done with")
    console.say(f"dry run passed; the real run would take about {duration(seconds)} and was not started")


def _scratch(config: Config, cleanup: contextlib.ExitStack) -> Path:
    """A directory that all processes see, and that goes when it is left: beside the run's own, if there are several."""
    place = None
    if jax.process_count() > 1:
        place = Path(config.workdir or ".").expanduser().absolute().parent
        while not place.is_dir():
            place = place.parent
        distributed.check_shared(place)
    made = ""
    if jax.process_index() == 0:
        made = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="jaxlm-dry-run-", dir=place))
    return Path(distributed.of_first("scratch directory", made))


def _memory(step: jax.stages.Compiled) -> str:
    """What a device needs, as the compiler counts and, where the platform tells, as it was used."""
    facts = []
    if (counted := step.memory_analysis()) is not None:
        needed = counted.argument_size_in_bytes + counted.temp_size_in_bytes + counted.generated_code_size_in_bytes
        facts.append(f"{needed / 2**30:.2f} GiB a device by the compiler's count")
    if (used := device_memory_bytes()) is not None:
        facts.append(f"{used / 2**30:.2f} GiB used at most")
    return ", ".join(facts)


def _walk(config: Config, workdir: Path, mesh: Mesh, console: Console, name: str) -> float:
    """One run in small; returns the seconds that the real one would take."""
    setup = prepare(config, mesh, console, name)
    state, batches = setup.initial_state(), setup.batches["train"]
    compile_s = training_s = 0.0
    ends = [*batches.starts[1:], setup.steps]
    for start, end in zip(batches.starts, ends, strict=True):  # the phases; one, unless the config has several
        started = time.perf_counter()
        with console.phase(f"{name}: compiling the training step"):
            step = setup.compile_train_step(start)
        compile_s += time.perf_counter() - started
        times = []
        for number in range(1 + _TIMED_STEPS):
            batch = put_batch(batches(start + number % (end - start)), mesh)
            started = time.perf_counter()
            state, metrics = step(state, batch)
            loss = float(metrics["loss"])
            times.append(time.perf_counter() - started)
        seconds = float(np.median(times[1:]))
        training_s += seconds * (end - start)
        console.say(
            f"{name}: one training step, loss {loss:.4f}; {end - start} steps of {seconds:.3f} s = "
            f"{duration(seconds * (end - start))}; {_memory(step)}"
        )
    evaluation_s = 0.0
    evaluator = Evaluator(setup.task, setup.graphdef, mesh)
    for split in ("dev", "test"):
        if split in setup.batches:
            batches = setup.batches[split]
            rounds = -(-setup.steps // setup.eval_every) if split == "dev" else 1
            for start, end in zip(batches.starts, [*batches.starts[1:], batches.steps], strict=True):
                evaluator.outputs(state["params"], batches, steps=[start])
                started = time.perf_counter()
                evaluator.outputs(state["params"], batches, steps=[start])
                evaluation_s += (time.perf_counter() - started) * (end - start) * rounds
            console.say(f"{name}: one evaluation step on {split}")
    with console.phase(f"{name}: checkpoint, saved and restored"):
        checkpoints = Checkpoints(workdir / "checkpoints")
        checkpoints.save(1, state, {})
        checkpoints.wait()
        del state  # two may not fit
        state, _ = checkpoints.restore(1, setup.abstract_state())
        checkpoints.close()
    with console.phase(f"{name}: model directory, written and loaded"):
        write_model(setup, state["params"], workdir / "model", {"train": {"loss": loss}})
        distributed.meet("model written")
        setup.task.model_class.from_pretrained(resolve(workdir / "model"))
    console.say(
        f"{name}: training {duration(training_s)}, evaluation {duration(evaluation_s)}, compilation {compile_s:.0f} s"
    )
    return training_s + evaluation_s + compile_s
