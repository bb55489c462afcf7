"""Whole runs of a small model, in this process."""

import dataclasses
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, TrainSettings
from jaxlm.console import Console
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import NonFiniteLoss, UserError
from jaxlm.parallel.mesh import make_mesh, put_batch
from jaxlm.predict import Predictor
from jaxlm.tasks.multi_label import MultiLabel
from jaxlm.training import loop, records
from jaxlm.training.checkpoint import Checkpoints
from jaxlm.training.optimizer import learning_rate_schedule
from jaxlm.training.run import prepare
from jaxlm.training.run import run as run_config
from jaxlm.training.setup import Setup, set_up
from jaxlm.training.stopping import StopRequest

from ..conftest import make_sentences

STEPS = 24


@pytest.fixture
def config(tiny_model: Path, sentences: dict[str, Path]) -> Config:
    return Config(
        model=ModelSettings(init=str(tiny_model)),
        data=DataSettings(train=str(sentences["train"]), dev=str(sentences["dev"]), max_length=32),
        train=TrainSettings(steps=STEPS, batch_size=16, eval_every=8, checkpoint_every=5, log_every=3),
        optim=OptimSettings(learning_rate=5e-3),
        mesh=MeshSettings(devices=1),
    )


def change(config: Config, **sections: Any) -> Config:
    """The config with other values, by section: `change(config, train={"steps": 3}, seed=1)`."""
    values = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in sections.items()
    }
    return dataclasses.replace(config, **values)


def ready(config: Config) -> Setup:
    return set_up(config, make_mesh(config.mesh.devices))


def run(config: Config, workdir: Path) -> tuple[dict[str, Any], str]:
    """Trains; returns the summary and what was said."""
    said = io.StringIO()
    return loop.train(ready(config), workdir, Console(said), "test"), said.getvalue()


def curve(workdir: Path) -> list[tuple[int, str, float]]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["split"], row["loss"]) for row in rows]


def test_writing_for_tensorboard_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; from pathlib import Path; from jaxlm.training.records import Recorder; "
        f"Recorder(Path({str(tmp_path)!r}), 0, 0).close(); assert 'torch' not in sys.modules, 'imported'; "
        "assert importlib.util.find_spec('torch'), 'not there'; import torch"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("step_is_done", "share"), [(True, 1.0), (False, 0.0)])
def test_waiting_for_data_is_what_leaves_the_device_idle(config: Config, step_is_done: bool, share: float) -> None:
    meter = loop._Meter(ready(config))
    pending: Any = {"loss": SimpleNamespace(is_ready=lambda: step_is_done)}
    meter.dispatched[1] = loop._Work(100, 10, 1e6)
    with meter.waiting_for_data(pending):
        time.sleep(0.2)
    meter.count(1)
    assert meter.speeds()["input_wait_share"] == pytest.approx(share, abs=0.05)


def test_evaluations_and_checkpoints_are_no_training_time(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock.now)
    meter = loop._Meter(ready(config))
    for step in range(1, 6):
        meter.dispatched[step] = loop._Work(100, 10, 1e6)
        clock.now += 1
        meter.count(step)
        if step == 2:
            assert meter.speeds()["seconds_per_step"] == 1
        with meter.paused():
            clock.now += 10
        assert meter.train_s == step
    assert meter.speeds()["seconds_per_step"] == 1


@pytest.mark.parametrize("runs_while_dispatched", [True, False])
def test_every_line_counts_the_time_of_its_own_steps(
    config: Config, monkeypatch: pytest.MonkeyPatch, runs_while_dispatched: bool
) -> None:
    """A step of a second, noted a step late but for the last and for one that is saved after, on a CPU and on a device
    that works by itself."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock.now)
    meter = loop._Meter(ready(config))
    speeds: list[float] = []
    done: dict[int, float] = {}
    pending: Any = None

    def note(step: int) -> None:
        clock.now = max(clock.now, done[step])
        meter.count(step)
        if step % 3 == 0:
            speeds.append(meter.speeds()["seconds_per_step"])

    for step in range(1, 7):
        with meter.waiting_for_data(pending):
            clock.now += 0.01
        done[step] = max(clock.now, done.get(step - 1, 0)) + 1
        if runs_while_dispatched:
            clock.now = done[step]
        meter.dispatched[step] = loop._Work(100, 10, 1e6)
        if pending is not None:
            note(step - 1)
        pending = {"loss": SimpleNamespace(is_ready=lambda step=step: clock.now >= done[step])}
        if step in (5, 6):
            note(step)
            pending = None
    assert speeds == pytest.approx([1, 1], abs=0.02)


def test_a_run_learns_and_leaves_what_the_readme_says(config: Config, tmp_path: Path) -> None:
    summary, said = run(change(config, train={"steps": 60}), tmp_path)
    assert summary["dev"]["accuracy"] > 0.85 > 0.6 > summary["dev"]["majority_accuracy"]
    assert {"tokens_per_second", "wall_s", "compile_s"} <= summary["train"].keys()
    assert 0 < summary["train"]["train_s"] < summary["train"]["wall_s"] - summary["train"]["compile_s"]
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(summary))
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md"} <= names
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir())
    assert "\r" not in said
    rates = learning_rate_schedule(config.optim, 60)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["split"] == "train"):
        assert row["learning_rate"] == pytest.approx(float(rates(row["step"] - 1)), rel=1e-5)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{summary['dev']['accuracy']:.4g}" in card


@pytest.mark.parametrize("stop_after", [1, 7, 16])
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_losses(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    expected, _ = run(config, tmp_path / "whole")
    real = loop.put_batch
    handed_out = []

    def put_and_signal(*arguments: Any) -> Any:
        handed_out.append(None)
        if len(handed_out) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "put_batch", put_and_signal)
    with pytest.raises(loop.Interrupted) as stopped:
        run(config, tmp_path / "cut")
    assert stopped.value.signal_number == signal.SIGTERM
    assert not (tmp_path / "cut" / "summary.json").exists()
    summary, said = run(config, tmp_path / "cut")
    assert f"restoring step {stop_after}" in said  # and none that was saved before it
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert summary["dev"] == expected["dev"]
    assert summary["train"]["loss"] == expected["train"]["loss"]


@pytest.mark.parametrize("evaluation", [1, 2, 3])  # at steps 8, 16, and 24, the last
def test_a_stop_is_heeded_before_and_after_an_evaluation_whose_step_is_saved(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: int
) -> None:
    """And where it is killed while it evaluates, it evaluates again, and judges as if it had not been."""
    hot = change(config, optim={"learning_rate": 0.1, "schedule": "constant"}, train={"patience": 3})
    expected, _ = run(hot, tmp_path / "whole")
    real = loop.Evaluator.evaluate

    def interrupted(when: str) -> Any:
        calls = []

        def evaluate(*arguments: Any, **settings: Any) -> Any:
            calls.append(None)
            if len(calls) == evaluation and when == "killed":
                while not (tmp_path / when / "checkpoints" / str(8 * evaluation)).is_dir():
                    time.sleep(0.01)
                raise MemoryError
            metrics = real(*arguments, **settings)
            if len(calls) == evaluation:
                os.kill(os.getpid(), signal.SIGTERM)
            return metrics

        return evaluate

    for when, end in (("killed", MemoryError), ("stopped", loop.Interrupted)):
        with monkeypatch.context() as patch:
            patch.setattr(loop.Evaluator, "evaluate", interrupted(when))
            with pytest.raises(end):
                run(hot, tmp_path / when)
        summary, said = run(hot, tmp_path / when)
        assert f"restoring step {8 * evaluation}:" in said
        assert curve(tmp_path / when) == curve(tmp_path / "whole")
        assert summary["dev"] == expected["dev"]
        assert summary["train"]["best_step"] == expected["train"]["best_step"]


def test_a_stop_after_the_last_step_waits_for_its_checkpoint(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Checkpoints.wait

    def wait(checkpoints: Checkpoints) -> None:
        signal.raise_signal(signal.SIGTERM)
        real(checkpoints)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "wait", wait)
        with pytest.raises(loop.Interrupted) as stopped:
            run(config, tmp_path)
    assert stopped.value.args[0].startswith(f"stopped at step {STEPS} by SIGTERM")
    _, said = run(config, tmp_path)
    assert f"restoring step {STEPS}:" in said


def test_a_run_that_had_no_patience_goes_on_with_more(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = change(config, optim={"learning_rate": 1e-12}, train={"eval_every": 2, "patience": 2})

    def full(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_model", full)
        with pytest.raises(MemoryError):
            run(stuck, tmp_path)
    summary, _ = run(change(stuck, train={"patience": 3}), tmp_path)
    assert summary["train"]["steps"] == 8


def test_a_run_killed_at_its_very_end_has_its_last_lines_once(
    config: Config, sentences: dict[str, Path], tmp_path: Path
) -> None:
    tested = change(config, data={"test": str(sentences["test"])})
    run(tested, tmp_path)
    written = curve(tmp_path)
    assert [split for _, split, _ in written].count("test") == 1
    best = json.loads((tmp_path / "summary.json").read_text())["train"]["best_step"]
    assert next(step for step, split, _ in written if split == "test") == best
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary.json is damaged"):
        records.read_summary(tmp_path)
    (tmp_path / "summary.json").unlink()
    run(tested, tmp_path)
    assert curve(tmp_path) == written


def test_a_run_keeps_the_tokenizer_that_it_made(config: Config, tmp_path: Path) -> None:
    """One that an earlier version made, say, which its weights know."""
    shape = ModelSettings(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32)
    own = change(config, train={"steps": 2}, workdir=str(tmp_path))
    own = dataclasses.replace(own, model=shape)
    run_config(own, "test", Console(io.StringIO()))
    kept = TextTokenizer.load(tmp_path / "tokenizer")
    assert kept.to_json()["tokenizer"] == TextTokenizer.load(tmp_path / "model").to_json()["tokenizer"]
    setup = prepare(own, make_mesh(1), Console(io.StringIO()), "test", tmp_path / "tokenizer")
    assert setup.config == own
    assert setup.tokenizer.sha256 == kept.sha256
    (tmp_path / "summary.json").unlink()  # as if it had been killed at the very end
    shutil.rmtree(tmp_path / "model")
    run_config(own, "test", Console(io.StringIO()))
    assert TextTokenizer.load(tmp_path / "model").sha256 == kept.sha256


def test_a_run_does_not_go_on_with_other_data(config: Config, sentences: dict[str, Path], tmp_path: Path) -> None:
    train = tmp_path / "train.tsv"
    lines = sentences["train"].read_text().splitlines(keepends=True)
    train.write_text("".join(lines))
    own = change(config, data={"train": str(train)}, train={"steps": 8})
    run(own, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    train.write_text("".join(lines[:-1]))
    before = curve(tmp_path / "run")
    with pytest.raises(UserError, match=r"train: the data are not those that the run in .*run was begun with"):
        run(own, tmp_path / "run")
    assert curve(tmp_path / "run") == before
    train.write_text("".join(lines))
    run(own, tmp_path / "run")


def test_losses_and_batches_are_the_same_on_any_number_of_devices(config: Config, tmp_path: Path) -> None:
    one = ready(config)
    run(config, tmp_path / "1")
    for devices in (2, 4, 8):
        other = change(config, mesh={"devices": devices})
        np.testing.assert_array_equal(
            ready(other).batches["train"](3)["input_ids"][: one.batches["train"].rows],
            one.batches["train"](3)["input_ids"],
        )
        run(other, tmp_path / str(devices))
        for ours, theirs in zip(curve(tmp_path / str(devices)), curve(tmp_path / "1"), strict=True):
            assert ours[:2] == theirs[:2]
            assert ours[2] == pytest.approx(theirs[2], rel=2e-4)


def test_micro_batches_change_no_loss(config: Config, tmp_path: Path) -> None:
    run(config, tmp_path / "1")
    run(change(config, train={"micro_batches": 3}), tmp_path / "3")
    for ours, theirs in zip(curve(tmp_path / "3"), curve(tmp_path / "1"), strict=True):
        assert ours[2] == pytest.approx(theirs[2], rel=2e-4)


def test_packed_training_equals_unpacked_training_with_dropout(config: Config, tmp_path: Path) -> None:
    packed = change(config, data={"row_length": 64})
    alone = change(config, data={"row_length": 32})
    assert ready(packed).batches["train"].rows < ready(alone).batches["train"].rows
    run(packed, tmp_path / "packed")
    run(alone, tmp_path / "alone")
    for ours, theirs in zip(curve(tmp_path / "packed"), curve(tmp_path / "alone"), strict=True):
        assert ours[2] == pytest.approx(theirs[2], rel=2e-4)


def test_the_saved_model_is_the_one_with_the_best_score(config: Config, tmp_path: Path) -> None:
    hot = change(config, optim={"learning_rate": 0.1, "schedule": "constant"}, train={"eval_every": 4})
    summary, _ = run(hot, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [row["accuracy"] for row in rows if row["split"] == "dev"]
    assert summary["dev"]["accuracy"] == max(scores)
    setup = ready(hot)
    predictor = Predictor(str(tmp_path / "model"), make_mesh(1))
    metrics, _ = predictor.evaluate(_table(setup))
    assert metrics["accuracy"] == max(scores)


def _table(setup: Setup) -> Any:
    from jaxlm.data.sources import read_table

    return read_table(str(setup.config.data.dev), "dev", setup.config.data, label_kind="class")


def test_patience_ends_a_run_that_no_longer_gains(config: Config, tmp_path: Path) -> None:
    stuck = change(config, optim={"learning_rate": 1e-12}, train={"eval_every": 2, "patience": 2})
    summary, said = run(stuck, tmp_path)
    assert summary["train"]["steps"] == 6
    assert "stopped early" in said


@pytest.mark.parametrize("larger", [True, False])
def test_a_run_ends_after_evaluations_without_gain_in_a_row_or_at_its_target(larger: bool) -> None:
    def end(scores: list[float], **settings: Any) -> tuple[int, float | None]:
        """The number of evaluations, and the best score."""
        progress = loop.Progress()
        task: Any = SimpleNamespace(metric="it", larger_is_better=larger)
        for progress.step, score in enumerate(scores, 1):
            if loop._judge(progress, sign * score, task, TrainSettings(**settings)):
                break
        assert progress.evaluated == progress.step
        if not any(map(math.isnan, scores)):
            assert progress.best_step == 1 + scores.index(max(scores[: progress.step]))
        return progress.step, progress.best_score and sign * progress.best_score

    sign = 1 if larger else -1
    assert end([2, 1, 3, 1, 2, 3, 4], patience=2) == (5, 3)
    assert end([2, 1, 3, 3, 3, 4], patience=3) == (6, 4)
    assert end([1, 2, 3, 4], target=sign * 3) == (3, 3)
    assert end([1, 2], target=sign * 3) == (2, 2)
    assert end([math.nan, 1, math.nan, math.nan], target=sign * 3) == (4, 1)  # no number is worse than any


def test_dev_alone_chooses_a_threshold_and_the_best_checkpoints_is_kept(config: Config, tmp_path: Path) -> None:
    files = {}
    for name, labels in {"train": "ab", "dev": "ab", "test": "a"}.items():
        lines = [json.dumps({"text": f"good {n}", "labels": list(labels[: 1 + n % 2])}) for n in range(16)]
        files[name] = str(_written(tmp_path / f"{name}.jsonl", lines))
    several = change(config, data=files, task="multi_label", optim={"learning_rate": 0.5, "schedule": "constant"})
    summary, _ = run(
        change(several, train={"steps": 10, "eval_every": 2, "metric": "loss", "max_shard_size": 1e-5}),
        tmp_path / "run",
    )
    assert summary["train"]["best_step"] < 10
    assert len(list((tmp_path / "run" / "model").glob("model-*-of-*.safetensors"))) > 1
    model = Predictor(str(tmp_path / "run" / "model"), make_mesh(1))
    assert isinstance(model.task, MultiLabel)
    chosen = model.task.threshold
    table = model.read(files["dev"], config.data)
    outputs, examples = model._outputs(model.task.examples(table)[0])[1], model.task.examples(table)[0]
    model.task.calibrate(outputs, examples)
    assert model.task.threshold == pytest.approx(chosen, rel=1e-4)


def _written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_run_is_finished_when_all_is_written(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "plot_losses", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    before = checkpoints.restore(STEPS, ready(config).abstract_state())[1]["train_s"]
    checkpoints.close()
    run(config, tmp_path)
    assert (tmp_path / "loss.png").is_file()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["train"]["train_s"] == pytest.approx(before, abs=1e-6)  # no step was taken again


def test_weights_are_bound_to_their_vocabulary_and_structure(config: Config, tmp_path: Path) -> None:
    TextTokenizer.train([text for text, _ in make_sentences(300, 0)], 40, lowercase=True).save(tmp_path, max_length=64)
    other = change(config, data={"tokenizer": str(tmp_path)})
    with pytest.raises(UserError, match=r"has another vocabulary than the weights of .* were trained with"):
        ready(other)
    ready(change(other, model={"random_init": True}))
    ready(change(config, data={"tokenizer": config.model.init}))
    layers = ready(config).bert_config.num_hidden_layers
    with pytest.raises(UserError, match=f"--model.num_hidden_layers is 7, and .* has {layers}"):
        ready(change(config, model={"num_hidden_layers": 7}))
    ready(change(config, model={"num_hidden_layers": layers}))
    assert ready(change(config, model={"initializer_range": 0.5})).bert_config.initializer_range == 0.5  # of the head
    sinusoids = change(config, model={"position_init": "sinusoidal"})
    with pytest.raises(UserError, match=r"--model.position_init is sinusoidal, but the positions of .* are trained"):
        ready(sinusoids)
    assert ready(change(sinusoids, model={"random_init": True})).bert_config.position_init == "sinusoidal"


def test_a_seed_decides_on_order_new_weights_and_dropout(config: Config) -> None:
    one, other = ready(config), ready(change(config, seed=1))
    batches = [of.batches["train"](0) for of in (one, other)]
    assert not np.array_equal(batches[0]["input_ids"], batches[1]["input_ids"])
    states = [of.initial_state() for of in (one, other)]
    heads = [state["params"]["classifier"]["kernel"] for state in states]
    assert not np.array_equal(*heads)
    losses = [
        float(of.train_step()(one.initial_state(), put_batch(batches[0], one.mesh))[1]["loss"]) for of in (one, other)
    ]
    assert losses[0] != losses[1]


def test_a_second_interrupt_ends_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.reached() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_loss_that_is_not_finite_names_step_and_examples_and_keeps_the_last_checkpoint(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = ready(config)
    real = loop.prefetch

    def poisoned(batches: Any, start: int, steps: int, to_device: Any) -> Any:
        for step, batch in enumerate(real(batches, start, steps, to_device), start):
            if step == 12:
                batch["example_weights"] = batch["example_weights"] * np.nan
            yield batch

    waited: list[Checkpoints] = []
    monkeypatch.setattr(loop, "prefetch", poisoned)
    monkeypatch.setattr(Checkpoints, "wait", lambda found: waited.append(found))  # what is named is whole by then
    with pytest.raises(NonFiniteLoss) as error:
        loop.train(setup, tmp_path, Console(io.StringIO()), "test")
    assert "step 13" in str(error.value)
    assert setup.batches["train"].describe_examples(12) in str(error.value)
    assert "Checkpoint 10 is the last good one" in str(error.value)
    assert waited
    monkeypatch.undo()
    run(config, tmp_path)
    assert np.isfinite([loss for _, _, loss in curve(tmp_path)]).all()


def test_a_workdir_of_another_config_is_refused_and_a_harmless_change_applied(config: Config, tmp_path: Path) -> None:
    records.write_config(tmp_path, config)
    assert records.check_workdir(tmp_path, config) == []
    assert records.check_workdir(tmp_path, change(config, train={"log_every": 7})) == ["train.log_every: 3 -> 7"]
    with pytest.raises(records.UserError, match=r"train.batch_size: 16 -> 8.*seed: 0 -> 1"):
        records.check_workdir(tmp_path, change(config, train={"batch_size": 8, "log_every": 7}, seed=1))


def test_a_step_moves_the_weights_and_donates_the_old_state(config: Config) -> None:
    setup = ready(config)
    state = setup.initial_state()
    before = jax.tree.map(np.array, state["params"])
    new, metrics = setup.compile_train_step()(state, put_batch(setup.batches["train"](0), setup.mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert metrics["weight"] == 15 or metrics["weight"] == 16
    moved = jax.tree.map(lambda old, now: bool((old != now).any()), before, new["params"])
    assert all(jax.tree.leaves(moved))


def test_a_run_is_set_up_as_it_was_told(config: Config, tmp_path: Path) -> None:
    TextTokenizer.train([text for text, _ in make_sentences(300, 0)], 60, lowercase=True).save(tmp_path, max_length=64)
    told = change(
        config, model={"random_init": True, "hidden_dropout": 0.3, "attention_dropout": 0.2},
        data={"tokenizer": str(tmp_path)}, train={"steps": None, "epochs": 2.05, "eval_every": None},
    )  # fmt: skip
    setup = ready(told)
    assert (setup.bert_config.hidden_dropout_prob, setup.bert_config.attention_probs_dropout_prob) == (0.3, 0.2)
    assert (setup.steps, setup.eval_every) == (21, 10)  # 150 examples by 16
    assert setup.tokenizer.sha256 == TextTokenizer.load(tmp_path).sha256 != ready(config).tokenizer.sha256
