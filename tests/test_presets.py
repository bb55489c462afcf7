"""Every preset is valid, and its flags can be read."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from jaxlm.config import Config, validate
from jaxlm.flags import parse

PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid_and_takes_flags(path: Path) -> None:
    config = runpy.run_path(str(path))["config"]
    assert isinstance(config, Config)
    with_data = dataclasses.replace(config.data, train=config.data.train or "prepared")
    changed = parse(Config, ["--seed", "3", "--data.dev", "x"], "test", dataclasses.replace(config, data=with_data))
    validate(changed)
    assert (changed.seed, changed.data.dev) == (3, "x")
    assert changed.train == config.train
    assert runpy.run_path(str(path))["__doc__"].count("python -m jaxlm train") + path.stem.count("quickstart") >= 1
