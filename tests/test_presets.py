"""Every preset is valid, and its flags can be read."""

import runpy
from pathlib import Path

import pytest

from jaxlm.config import Config
from jaxlm.config_checks import validate
from jaxlm.flags import parse

PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid_and_takes_flags(path: Path) -> None:
    config = runpy.run_path(str(path))["config"]
    assert isinstance(config, Config)
    if config.parts:
        data = {name: f"{name}.tsv" for name in ("train", "dev")}
        flags = [
            item for part in config.parts for name in data for item in (f"--parts.{part.name}.data.{name}", data[name])
        ]
    else:
        flags = ["--data.dev", "dev.tsv", *([] if config.data.train else ["--data.train", "prepared"])]
    changed = parse(Config, ["--seed", "3", *flags], "test", config)
    validate(changed)
    assert changed.seed == 3
    assert {of.data.dev for of in (changed.parts or (changed,))} == {"dev.tsv"}
    assert changed.train == config.train
    assert runpy.run_path(str(path))["__doc__"].count("python -m jaxlm train") + path.stem.count("quickstart") >= 1
