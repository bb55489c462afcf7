"""What is made of settings: of changed ones when a run goes on, and of those that would do nothing."""

import dataclasses
from typing import Any

import pytest

from jaxlm.config import (
    Config,
    DataSettings,
    ModelSettings,
    OptimSettings,
    Phase,
    Stage,
    TaskName,
    TrainSettings,
)
from jaxlm.config_changes import changes, fingerprint, flatten
from jaxlm.config_checks import validate
from jaxlm.errors import UserError


def test_changes_are_applied_or_refused_by_setting() -> None:
    old = flatten(Config())
    new = Config(train=TrainSettings(log_every=7), optim=OptimSettings(learning_rate=1e-3))
    assert changes(old, new) == (["train.log_every: 20 -> 7"], ["optim.learning_rate: 5e-05 -> 0.001"])


def test_a_run_from_before_a_setting_existed_had_its_default() -> None:
    old = {name: value for name, value in flatten(Config()).items() if not name.startswith("labels.")}
    assert changes(old, Config()) == ([], [])
    other = dataclasses.replace(Config(), labels=dataclasses.replace(Config().labels, out_of_scope="oos"))
    assert changes(old, other) == ([], ["labels.out_of_scope: None -> oos"])


@pytest.mark.parametrize("task", ["regression", "embedding", "masked_lm"])
def test_labels_are_smoothed_only_where_there_are_labels(task: TaskName) -> None:
    config = Config(task=task, data=DataSettings(train="x"), train=TrainSettings(label_smoothing=0.1))
    with pytest.raises(UserError, match=rf"--train\.label_smoothing is 0\.1; it must be 0 in {task}"):
        validate(config)


@pytest.mark.parametrize(
    ("name", "value"), [("init", "bert-base-uncased"), ("hidden_size", 256), ("position_init", "sinusoidal")]
)
def test_the_model_of_a_pretrain_stage_is_set_there(name: str, value: Any) -> None:
    data = DataSettings(train="a.tsv")
    stage = Stage(task="masked_lm", model=ModelSettings(**{name: value}), data=data)
    validate(Config(data=data, pretrain=stage))
    with pytest.raises(UserError, match=f"--model.{name} is {value}, but .*: set --pretrain.model.{name}, or"):
        validate(Config(data=data, model=stage.model, pretrain=stage))
    own = dataclasses.replace(data, tokenizer="mine")
    with pytest.raises(UserError, match=r"--data.tokenizer is mine, but .* set --pretrain.data.tokenizer"):
        validate(Config(data=own, pretrain=stage))
    validate(Config(data=own, pretrain=dataclasses.replace(stage, data=own)))


def test_the_default_directory_depends_on_what_differs_from_the_defaults_alone() -> None:
    assert fingerprint(Config()) == fingerprint(Config(train=TrainSettings(log_every=7), workdir="x"))
    assert fingerprint(Config()) != fingerprint(Config(seed=1))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Phase(2, warmup=0.1), r"--train\.phases\.1\.warmup is 0\.1, but no schedule starts there: give the phase a l"),
        (Phase(2, learning_rate=1, warmup=-1), r"--train\.phases\.1\.warmup is -1; it must be at least 0"),
        (Phase(2, batch_size=0), r"--train\.phases\.1\.batch_size is 0; it must be at least 1"),
        (Phase(2, learning_rate=0), r"--train\.phases\.1\.learning_rate is 0; it must be at least > 0"),
    ],
)
def test_a_phase_that_cannot_be_is_refused(second: Phase, message: str) -> None:
    config = Config(task="masked_lm", data=DataSettings(train="x"), train=TrainSettings(phases=(Phase(2), second)))
    with pytest.raises(UserError, match=message):
        validate(config)
    validate(dataclasses.replace(config, train=TrainSettings(phases=(Phase(2, warmup=0.1), Phase(2)))))
