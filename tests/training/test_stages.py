"""A run that pre-trains first: its parts, and that it goes on wherever it was stopped."""

import dataclasses
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, Stage, TrainSettings
from jaxlm.console import Console
from jaxlm.errors import UserError
from jaxlm.training import loop
from jaxlm.training.run import run

STAGES = ["pretrain", "finetune", "from_scratch"]


@pytest.fixture
def config(sentences: dict[str, Path]) -> Config:
    data = DataSettings(train=str(sentences["train"]), dev=str(sentences["dev"]), max_length=32, vocab_size=60)
    shape = ModelSettings(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32)
    train = TrainSettings(steps=6, batch_size=16, eval_every=3, log_every=1)
    return Config(
        pretrain=Stage(task="masked_lm", model=shape, data=dataclasses.replace(data, text="0"), train=train),
        data=data,
        train=train,
        optim=OptimSettings(learning_rate=5e-3),
        mesh=MeshSettings(devices=1),
        compare_from_scratch=True,
    )


def train(config: Config, workdir: Path | str) -> str:
    said = io.StringIO()
    run(dataclasses.replace(config, workdir=str(workdir)), "test", Console(said))
    return said.getvalue()


def with_tokenizer(config: Config, directory: Path) -> Config:
    assert config.pretrain is not None
    data = dataclasses.replace(config.pretrain.data, tokenizer=str(directory))
    return dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, data=data))


def losses(workdir: Path) -> dict[str, list[tuple[int, str, float]]]:
    rows = {stage: (workdir / stage / "metrics.jsonl").read_text().splitlines() for stage in STAGES}
    return {
        stage: [(row["step"], row["split"], row["loss"]) for row in map(json.loads, lines)]
        for stage, lines in rows.items()
    }


def stop_at(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """A SIGTERM while the batch of that number, counted over all stages, is put on the devices."""
    real, handed_out = loop.put_batch, []

    def put_and_signal(*arguments: Any) -> Any:
        handed_out.append(None)
        if len(handed_out) == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "put_batch", put_and_signal)


@pytest.mark.parametrize("batches", [2, 8, 14])
def test_a_run_goes_on_in_the_stage_where_it_was_stopped(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, batches)
        with pytest.raises(loop.Interrupted):
            train(config, "cut")
    stopped_in = STAGES[batches // 6]
    assert not (tmp_path / "cut" / stopped_in / "summary.json").exists()
    moved = Path("cut").rename("moved")  # as where it lies on a disk that is mounted elsewhere now
    said = train(config, moved.absolute())
    assert "restoring step" in said
    assert "held-out accuracy, without pre-training" in said
    # Each start draws a vocabulary of its own, where pieces are equally frequent: the first stage keeps it.
    train(with_tokenizer(config, tmp_path / "moved" / "pretrain" / "tokenizer"), "whole")
    assert losses(tmp_path / "moved") == losses(tmp_path / "whole")
    assert "this run is finished" in train(config, "moved")


def test_a_run_with_other_settings_is_refused_in_any_stage(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2)
    with pytest.raises(loop.Interrupted):
        train(config, tmp_path)
    with pytest.raises(UserError, match=r"holds a run with other settings: seed: 0 -> 1"):
        train(dataclasses.replace(config, seed=1), tmp_path)


def test_a_kill_at_the_very_start_does_not_bar_the_directory(config: Config, tmp_path: Path) -> None:
    (tmp_path / ".config.json.a1b2c3").touch()
    train(config, tmp_path)
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_home_directory_is_found_where_no_shell_names_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(config, "~/runs/mine")
    assert (tmp_path / "runs" / "mine" / "summary.json").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_length": 64}, "--data.max_length is 64; the model has 32 positions"),
        ({"label": "nothing"}, "nothing"),
        ({"dev": "one.tsv"}, "one.tsv"),
    ],
)
def test_what_is_wrong_with_the_fine_tuning_is_found_before_the_pre_training(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.tsv").write_text("a text\tof_no_known_label\n")
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(config, data=dataclasses.replace(config.data, **change)), "run")
    assert not (tmp_path / "run" / "pretrain").exists()


def test_the_time_told_is_that_of_all_stages(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for part in (summary, summary["pretrain"], summary["from_scratch"]):
        part["train"]["wall_s"] = 100.0
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert "training took 5:00" in train(config, tmp_path)
