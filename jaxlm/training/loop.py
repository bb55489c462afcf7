"""The training loop, in the order in which things happen.

Contract: a step is dispatched before the previous step's loss is read, so the device never waits for the host; the
loss of every step is read, and nothing is saved before the losses up to it were finite; a step that is evaluated is
saved before, so that a stop need not wait, and evaluated again after a restart from it, since only a later checkpoint
knows the score; what else the loop must know after a restart is in the checkpoint.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxlm.config import TrainSettings
from jaxlm.console import Console, duration
from jaxlm.data.loader import prefetch
from jaxlm.data.part_batches import of_part
from jaxlm.errors import NonFiniteLoss
from jaxlm.models.multi_task import MultiTaskBert
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import compute_dtype, put_batch
from jaxlm.tasks import Task
from jaxlm.training.checkpoint import Checkpoints
from jaxlm.training.compilation import cache_hits
from jaxlm.training.evaluation import Evaluator
from jaxlm.training.flops import model_flops_utilization
from jaxlm.training.identity import check_data, write_data
from jaxlm.training.model_card import write_model_card
from jaxlm.training.plots import plot_losses
from jaxlm.training.records import Recorder, scalars, write_config, write_summary
from jaxlm.training.setup import Setup, trains_tokenizer
from jaxlm.training.step import State
from jaxlm.training.stopping import Interrupted, StopRequest


@dataclasses.dataclass
class Progress:
    """What the loop remembers across restarts; saved in every checkpoint."""

    step: int = 0
    evaluated: int = 0  # the step of the last evaluation on dev
    best_score: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    interval_loss: float = 0.0  # sum of the losses since the last log line
    interval_losses: list[float] = dataclasses.field(default_factory=list)  # likewise, of each of several losses
    interval_steps: int = 0
    last_loss: float = math.nan
    wall_s: float = 0.0
    train_s: float = 0.0  # of it, spent in training steps
    compile_s: float = 0.0
    tokens: float = 0
    examples: int = 0


def train(setup: Setup, workdir: Path, console: Console, name: str) -> dict[str, Any]:
    """Trains, evaluates, and writes the model; goes on where the run in `workdir` stopped.

    Args:
      name: what the progress line calls the run.

    Returns:
      The content of summary.json.

    Raises:
      Interrupted: SIGTERM or SIGINT came; the run has saved itself.
      NonFiniteLoss: the last good checkpoint is kept.
      UserError: the run in `workdir` was begun with other data.
    """
    config, task, batches = setup.config, setup.task, setup.batches["train"]
    writes = jax.process_index() == 0
    started = time.perf_counter()

    state: State = {}
    # Weights that cannot be read are found before anything is written.
    if distributed.of_first("whether the run is new", not (workdir / "checkpoints").is_dir()):
        with console.phase("initialising the model"):
            state = jax.block_until_ready(setup.initial_state())
    check_data(setup, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    if writes:
        write_config(workdir, config)
        write_data(setup, workdir)
        if trains_tokenizer(config):
            setup.tokenizer.save(workdir / "tokenizer", max_length=config.data.max_length)
    checkpoints = Checkpoints(workdir / "checkpoints")
    progress = Progress()
    if (found := checkpoints.newest_of_all()) is not None:
        with console.phase(f"restoring step {found}"):
            state, saved = checkpoints.restore(found, setup.abstract_state())
        known = {field.name for field in dataclasses.fields(Progress)}  # not those of other versions
        progress = Progress(**{name: value for name, value in saved.items() if name in known})
    elif not state:  # the run was killed before its first checkpoint
        state = setup.initial_state()
    earlier_wall_s, earlier_train_s, resumed_at = progress.wall_s, progress.train_s, progress.step
    recorder = Recorder(workdir, progress.step, progress.evaluated) if writes else None

    def compiled() -> jax.stages.Compiled:
        hits, compile_started = cache_hits(), time.perf_counter()
        with console.phase("compiling the training step") as remarks:
            train_step = setup.compile_train_step(progress.step)
            remarks.append("from the compilation cache" if cache_hits() > hits else "not in the compilation cache")
        progress.compile_s += time.perf_counter() - compile_started
        return train_step

    train_step: Any = compiled() if progress.step < setup.steps else None
    evaluator = Evaluator(task, setup.graphdef, setup.mesh)
    meter = _Meter(setup)

    results: dict[str, Any] = {}
    ended_because: str | None = None  # before the last step

    def note_loss(step: int, metrics: dict[str, jax.Array]) -> None:
        """Reads the loss of a step that was dispatched a while ago."""
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            checkpoints.wait()
            kept = checkpoints.latest()
            raise NonFiniteLoss(
                f"step {step}: the loss is {loss}, the gradient's norm {norm}. Its examples: "
                f"{batches.describe_examples(step - 1)}. "
                + (f"Checkpoint {kept} is the last good one. " if kept else "No checkpoint had been saved yet. ")
                + "A lower --optim.learning_rate or a longer --optim.warmup often helps"
            )
        progress.last_loss = loss
        progress.interval_loss += loss
        if task.loss_names:
            before = progress.interval_losses or [0.0] * len(task.loss_names)
            progress.interval_losses = [a + b for a, b in zip(before, metrics["losses"].tolist(), strict=True)]
        progress.interval_steps += 1
        meter.count(step)
        if step % config.train.log_every == 0 or step == setup.steps:
            facts = {
                "loss": progress.interval_loss / progress.interval_steps,
                "learning_rate": float(metrics["learning_rate"]),
                "grad_norm": norm,
                "epoch": batches.epoch(step),
            }
            for loss_name, total in zip(task.loss_names, progress.interval_losses, strict=True):
                facts[f"loss/{loss_name}"] = total / progress.interval_steps
            progress.interval_loss, progress.interval_losses, progress.interval_steps = 0.0, [], 0
            speeds = meter.speeds()
            if recorder:
                recorder.write(step, "train", facts | speeds)
            _show(console, name, step, setup.steps, facts, speeds)

    def evaluate(split: str, step: int) -> dict[str, Any]:
        with meter.paused():
            metrics = evaluator.evaluate(state["params"], setup.batches[split], calibrate=split == "dev")
        if recorder:
            recorder.write(step, split, metrics)
        listing = ", ".join(f"{key} {value:.4g}" for key, value in scalars(metrics).items())
        console.say(f"{name}: step {step}, {split}: {listing}")
        return metrics

    def evaluate_dev() -> None:
        nonlocal ended_because
        results["dev"] = evaluate("dev", progress.step)
        ended_because = _judge(progress, float(results["dev"][task.metric]), task, config.train)

    def save() -> None:
        progress.wall_s = earlier_wall_s + time.perf_counter() - started
        progress.train_s = earlier_train_s + meter.train_s
        with meter.paused():
            checkpoints.save(progress.step, state, dataclasses.asdict(progress), keep=progress.best_step)

    def evaluates() -> bool:
        """Whether the step that has been taken is to be evaluated, and has not been."""
        wanted = progress.step == setup.steps or progress.step % setup.eval_every == 0
        return "dev" in setup.batches and wanted and progress.evaluated < progress.step

    with StopRequest() as stop:
        stopped_by = stop.reached()
        if evaluates() and not stopped_by:
            evaluate_dev()
        steps = prefetch(batches, progress.step, setup.steps, lambda batch: put_batch(batch, setup.mesh))
        pending: dict[str, jax.Array] | None = None
        while progress.step < setup.steps and not ended_because and not stopped_by:
            if progress.step in batches.starts and progress.step not in (0, resumed_at):
                with meter.paused():  # a new phase has batches of another shape
                    train_step = compiled()
            with meter.waiting_for_data(pending):
                batch = next(steps)
            state, metrics = train_step(state, batch)
            if pending is not None:
                note_loss(progress.step, pending)
            pending = metrics
            tokens, examples = batches.tokens(progress.step), batches.count(progress.step)
            progress.step += 1
            progress.tokens, progress.examples = progress.tokens + tokens, progress.examples + examples
            flops = task.step_flops(setup.bert_config, batches, progress.step - 1, batch)
            meter.dispatched[progress.step] = _Work(tokens, examples, flops)

            stopped_by = stop.reached()
            last = progress.step == setup.steps
            if last or stopped_by or evaluates() or progress.step % config.train.checkpoint_every == 0:
                note_loss(progress.step, pending)
                pending = None
                save()
            if evaluates() and not stopped_by:
                evaluate_dev()
                stopped_by = stop.reached()
        checkpoints.wait()  # while a stop is still heeded
        if stopped_by := stopped_by or stop.past_the_loop():
            checkpoints.close()
            raise Interrupted(stopped_by, progress.step)

    if ended_because and progress.step < setup.steps:
        console.say(f"{name}: stopped early: {ended_because}")
    best = progress.best_step if "dev" in setup.batches else None
    if best is not None and (best != progress.step or "dev" not in results):
        with console.phase(f"restoring the best checkpoint, step {best}"):
            state = {}  # the last step's goes first: two may not fit
            state, _ = checkpoints.restore(best, setup.abstract_state())
        results["dev"] = evaluator.evaluate(state["params"], setup.batches["dev"], calibrate=True)
    if "test" in setup.batches:
        results["test"] = evaluate("test", best or progress.step)
    train_s = max(earlier_train_s + meter.train_s, 1e-9)
    results["train"] = {
        "loss": progress.last_loss,
        "steps": progress.step,
        "best_step": best or progress.step,
        "tokens_per_second": progress.tokens / train_s,
        "examples_per_second": progress.examples / train_s,
        "wall_s": earlier_wall_s + time.perf_counter() - started,
        "train_s": train_s,
        "compile_s": progress.compile_s,
    }
    with console.phase("writing the model"):
        write_model(setup, state["params"], workdir / "model", results)
    if recorder:
        recorder.close()
        plot_losses({name: workdir}, workdir / "loss.png")
        write_summary(workdir, results)  # last: with it the run is finished
    checkpoints.close()
    distributed.meet(f"{name}: written")
    return results


def write_model(setup: Setup, params: Any, directory: Path, results: dict[str, Any]) -> None:
    """Writes the model directory: weights, config, tokenizer, and a card that says what it is; and in it those of the
    parts, where there are any.

    Every process takes part, since each may have its own part of `params`; the first one writes.
    """
    for part in setup.config.parts:
        its_results = {split: of_part(metrics, part.name) for split, metrics in results.items()}
        its_params = MultiTaskBert.params_of(setup.bert_config, params, part.name)
        write_model(setup.of_part(part), its_params, directory / part.name, its_results)
    if jax.process_index() == 0:
        setup.tokenizer.save(directory, max_length=setup.task.max_length)
        write_model_card(directory, setup, results)
    setup.task.save(directory, setup.bert_config, params)


def _judge(progress: Progress, score: float, task: Task, settings: TrainSettings) -> str | None:
    """Compares an evaluation with the best so far; says why the run is at its end, if it is."""

    def better(one: float, other: float) -> bool:
        if math.isnan(other):
            return not math.isnan(one)
        return one > other if task.larger_is_better else one < other

    progress.evaluated = progress.step
    if progress.best_score is None or progress.best_step is None or better(score, progress.best_score):
        progress.best_score, progress.best_step, progress.evaluations_without_gain = score, progress.step, 0
    else:
        progress.evaluations_without_gain += 1
    if settings.target is not None and not better(settings.target, score):
        return f"{task.metric} {score:.4g} has reached the target, {settings.target:g}"
    if settings.patience is not None and progress.evaluations_without_gain >= settings.patience:
        return f"no better {task.metric} in {settings.patience} evaluations"
    return None


def _show(
    console: Console, name: str, step: int, steps: int, facts: dict[str, float], speeds: dict[str, float]
) -> None:
    left = (steps - step) * speeds["seconds_per_step"]
    several = ", ".join(f"{key[5:]} {value:.4f}" for key, value in facts.items() if key.startswith("loss/"))
    text = (
        f"loss {facts['loss']:.4f}{several and f' ({several})'}  {speeds['tokens_per_second']:.0f} tokens/s  "
        f"{speeds['examples_per_second']:.1f} examples/s"
    )
    if "model_flops_utilization" in speeds:
        text += f"  MFU {speeds['model_flops_utilization']:.1%}"
    console.progress(name, step, steps, text, left)
    if not console.live:
        rate = f"learning rate {facts['learning_rate']:.2e}  epoch {facts['epoch']:.2f}"
        if speeds["input_wait_share"] >= 0.01:
            rate += f"  waiting for data {speeds['input_wait_share']:.0%}"
        console.say(f"{name}: step {step}/{steps}  {text}  {rate}  {duration(left)} left")


class _Work(NamedTuple):
    """What a step is worth."""

    tokens: float
    examples: int
    flops: float


class _Meter:
    """Speeds over the time spent training: evaluations and checkpoints are not counted."""

    def __init__(self, setup: Setup) -> None:
        self._devices = list(setup.mesh.devices.flat)
        self._dtype = compute_dtype(setup.config.model.dtype, setup.mesh)
        self.dispatched: dict[int, _Work] = {}  # of steps under way
        self._since = self._until = time.perf_counter()
        self._idle_since: float | None = None
        self._counted: list[_Work] = []
        self._waited = 0.0
        self._told_s = 0.0  # up to the last call of `speeds`

    @property
    def train_s(self) -> float:
        """Seconds spent training, up to the last step counted."""
        return self._told_s + self._until - self._since

    def count(self, step: int) -> None:
        """A CPU runs the next step while that is dispatched: this one was done before, as `waiting_for_data` saw."""
        self._counted.append(self.dispatched.pop(step))
        self._until = self._idle_since or time.perf_counter()
        self._idle_since = None

    def paused(self) -> "_Pause":
        def report(seconds: float) -> None:
            self._since += seconds
            self._until += seconds

        return _Pause(report)

    def waiting_for_data(self, pending: dict[str, Any] | None) -> "_Pause":
        """Counts a wait that left the device idle: the step before, `pending`, was done when the batch came."""

        def report(seconds: float) -> None:
            idle = pending is None or pending["loss"].is_ready()
            self._waited += idle * seconds
            self._idle_since = time.perf_counter() if idle and pending else None

        return _Pause(report)

    def speeds(self) -> dict[str, float]:
        """Means of the steps counted since the last call."""
        seconds = max(self._until - self._since, 1e-9)
        result = {
            "seconds_per_step": seconds / max(len(self._counted), 1),
            "tokens_per_second": sum(work.tokens for work in self._counted) / seconds,
            "examples_per_second": sum(work.examples for work in self._counted) / seconds,
            "model_flops_per_second": sum(work.flops for work in self._counted) / seconds,
            "input_wait_share": self._waited / seconds,
        }
        utilization = model_flops_utilization(result["model_flops_per_second"], self._devices, self._dtype)
        if utilization is not None:
            result["model_flops_utilization"] = utilization
        self._told_s = self.train_s
        self._since, self._waited = self._until, 0.0
        self._counted.clear()
        return result


class _Pause:
    """Times a block and hands the seconds on."""

    def __init__(self, report: Any):
        self._report = report

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        self._report(time.perf_counter() - self._start)
