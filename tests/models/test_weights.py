"""Weights in several files, as we write them: transformers reads them, so do we, and nothing old stays beside them."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest
import transformers

from jaxlm.models import BertForPreTraining, CheckpointError
from jaxlm.models.hub import read_tensors
from jaxlm.models.weights import INDEX, SINGLE, Source, write_weights

from .conftest import Checkpoints
from .reference import batch, flat_params, outputs, params_of, relative_error, torch_outputs

LIMIT = 12_000  # bytes; the largest parameter, layers' kernels of queries, keys and values, has 12,288


@pytest.fixture
def saved(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    checkpoints.model("BertForPreTraining").save_pretrained(tmp_path, max_shard_size=LIMIT)
    return tmp_path


def weight_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if "safetensors" in path.name)


def test_transformers_reads_several_files_and_gives_our_logits(saved: Path, checkpoints: Checkpoints) -> None:
    opened, info = transformers.BertForPreTraining.from_pretrained(saved, output_loading_info=True)
    assert not any(info.values()), info
    arrays = batch("erf", padded=True)
    wanted = torch_outputs(opened.eval(), arrays)
    for name, found in outputs(checkpoints.model("BertForPreTraining"), **arrays)._asdict().items():
        assert relative_error(found, wanted[name]) < 1e-5, name


def test_we_read_several_files_as_they_were(saved: Path, checkpoints: Checkpoints) -> None:
    model = checkpoints.model("BertForPreTraining")
    expected = params_of(model)
    found = flat_params(BertForPreTraining.load_params(saved, model.config, jax.random.key(0)))
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def test_files_are_named_and_indexed_as_transformers_does_and_none_is_larger_than_asked(saved: Path) -> None:
    files = weight_files(saved)
    shards = [name for name in files if name != INDEX]
    assert shards == [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    index = json.loads((saved / INDEX).read_text())
    held: dict[str, str] = {}
    total = 0
    for shard in shards:
        content = (saved / shard).read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        tensors = json.loads(content[8:start])
        assert tensors.pop("__metadata__") == {"format": "pt"}
        held |= dict.fromkeys(tensors, shard)
        total += len(content) - start
        kinds = {name.rsplit(".", 2)[1] for name in tensors}
        assert len(content) - start <= LIMIT or kinds == {"query", "key", "value"}  # one parameter of ours
    assert index == {"metadata": {"total_size": total}, "weight_map": held}
    assert len(shards) > 4


def test_a_save_in_another_number_of_files_leaves_none_of_the_old(saved: Path, checkpoints: Checkpoints) -> None:
    model = checkpoints.model("BertForPreTraining")
    before = weight_files(saved)
    model.save_pretrained(saved, max_shard_size=4 * LIMIT)
    fewer = weight_files(saved)
    assert 2 < len(fewer) < len(before)
    assert set(fewer) & set(before) == {INDEX}
    model.save_pretrained(saved)
    assert weight_files(saved) == [SINGLE]
    model.save_pretrained(saved, max_shard_size=LIMIT)
    assert weight_files(saved) == before


def test_of_a_save_that_breaks_off_a_reader_finds_nothing_rather_than_some_of_each(saved: Path) -> None:
    def broken() -> dict:
        raise OSError("the disk is full")

    sources = [Source({f"t{number}": (4000,)}, broken) for number in range(3)]
    with pytest.raises(OSError, match="disk is full"):
        write_weights(saved, sources, LIMIT)
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_tensors(saved)
    assert not list(saved.glob(".*"))


def test_a_save_that_breaks_off_in_a_file_leaves_the_old_one(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: dict, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    model = checkpoints.model("BertModel")
    model.save_pretrained(tmp_path)
    before = (tmp_path / SINGLE).read_bytes()
    monkeypatch.setattr("safetensors.numpy.save_file", half)
    with pytest.raises(OSError, match="disk is full"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / SINGLE).read_bytes() == before
