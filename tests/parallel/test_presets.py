"""The presets' programs, with fewer and smaller layers, on a mesh that splits everything."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from jaxlm.config import Config, MeshSettings
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


@pytest.mark.parametrize("name", PRESETS)
def test_the_partitioner_never_gives_up_on_a_preset(name: str, tmp_path: Path) -> None:
    config = small(runpy.run_path(str(CONFIGS / f"{name}.py"))["config"], tmp_path)
    assert "rematerialization" not in Programs(config, tmp_path)("2x2x2")[2]
