"""The presets' programs, with fewer and smaller layers, on a mesh that splits everything."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config, MeshSettings, ModelSettings
from jaxlm.parallel.mesh import make_mesh
from jaxlm.training.setup import set_up
from jaxlm.training.stand_in import stand_in

from .programs import Programs

CONFIGS = Path(__file__).parents[2] / "configs"
# One of each task, and of each objective; the other presets differ from these in numbers alone.
PRESETS = ["sst2", "stsb", "go_emotions", "conll2003", "atis", "squad", "embeddings_nli", "embeddings_stsb",
           "msmarco_reranker", "pretrain_bert_large", "pretrain_modern"]  # fmt: skip


def small(config: Config, folder: Path) -> Config:
    """The config with small layers, short rows, and made-up data."""
    train, pretrains = config.train, config.task == "masked_lm"
    phases = tuple(dataclasses.replace(phase, max_length=32, batch_size=8, steps=2) for phase in train.phases)
    model = dataclasses.replace(
        config.model, init=None, hidden_size=32, num_hidden_layers=2, num_attention_heads=8, intermediate_size=64,
        max_position_embeddings=256, layers="scan",
    )  # fmt: skip
    data = dataclasses.replace(
        config.data, tokenizer=None, vocab_size=200, max_length=256 if config.task == "question_answering" else 32,
        mixture=(), train=None if pretrains else config.data.train,
    )  # fmt: skip
    train = dataclasses.replace(train, batch_size=8, phases=phases)
    config = dataclasses.replace(
        config, model=model, data=data, train=train, mesh=MeshSettings(devices=8, fsdp=2, tensor=2)
    )
    return stand_in(config, folder, data_is_given=False).config


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("embeddings_stsb", {"embedding": {"loss": "cosent"}}),
        ("embeddings_nli", {"embedding": {"positive": "entailment"}}),
        ("embeddings_stsb", {"data": {"negative": "worst"}}),
        ("sst2", {"train": {"batch_size": 1}}),
    ],
)
def test_data_is_made_up_for_any_settings(name: str, settings: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    config: Config = runpy.run_path(str(CONFIGS / f"{name}.py"))["config"]
    config = dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **values) for part, values in settings.items()}
    )
    shape = ModelSettings(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=128)
    config = dataclasses.replace(config, model=shape, data=dataclasses.replace(config.data, vocab_size=60))
    setup = set_up(stand_in(config, tmp_path, data_is_given=False).config, make_mesh(1))
    assert setup.batches["train"].count(0) == config.train.batch_size


@pytest.mark.parametrize("name", PRESETS)
def test_the_partitioner_never_gives_up_on_a_preset(name: str, tmp_path: Path) -> None:
    config = small(runpy.run_path(str(CONFIGS / f"{name}.py"))["config"], tmp_path)
    assert "rematerialization" not in Programs(config, tmp_path)("2x2x2")[2]
