"""What resuming makes of changed settings."""

import dataclasses

from jaxlm.config import Config, OptimSettings, TrainSettings
from jaxlm.config_changes import changes, fingerprint, flatten


def test_changes_are_applied_or_refused_by_setting() -> None:
    old = flatten(Config())
    new = Config(train=TrainSettings(log_every=7), optim=OptimSettings(learning_rate=1e-3))
    assert changes(old, new) == (["train.log_every: 20 -> 7"], ["optim.learning_rate: 5e-05 -> 0.001"])


def test_a_run_from_before_a_setting_existed_had_its_default() -> None:
    old = {name: value for name, value in flatten(Config()).items() if not name.startswith("labels.")}
    assert changes(old, Config()) == ([], [])
    other = dataclasses.replace(Config(), labels=dataclasses.replace(Config().labels, out_of_scope="oos"))
    assert changes(old, other) == ([], ["labels.out_of_scope: None -> oos"])


def test_the_default_directory_depends_on_what_differs_from_the_defaults_alone() -> None:
    assert fingerprint(Config()) == fingerprint(Config(train=TrainSettings(log_every=7), workdir="x"))
    assert fingerprint(Config()) != fingerprint(Config(seed=1))
