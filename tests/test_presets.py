"""Every preset is valid, and its flags can be read."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from jaxlm.config import Config
from jaxlm.config_checks import validate
from jaxlm.errors import UserError
from jaxlm.flags import parse
from jaxlm.tasks import TASKS

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


@pytest.mark.parametrize("name", ["mnli", "mrpc", "qnli", "qqp", "rte", "stsb", "wnli", "embeddings_stsb"])
def test_a_preset_of_pairs_reads_no_single_texts(tmp_path: Path, name: str) -> None:
    config = runpy.run_path(str(PRESETS[0].with_name(f"{name}.py")))["config"]
    rows = [{"sentence1": f"a text {n}", "label": n % 2} for n in range(4)]
    path = tmp_path / "single.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"which column is the second text\?"):
        TASKS[config.task].read(str(path), "train", dataclasses.replace(config.data, text="sentence1", text_pair=None))


def test_scores_of_similarity_are_what_the_data_says() -> None:
    """The benchmark comes with scores up to 5, and up to 1."""
    settings = runpy.run_path(str(PRESETS[0].with_name("embeddings_stsb.py")))["config"].embedding
    assert (settings.loss, settings.lowest, settings.highest) == ("cosine", None, None)
