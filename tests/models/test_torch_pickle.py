"""pytorch_model.bin is read as PyTorch reads it, and nothing in it is run."""

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._utils import _rebuild_tensor_v2 as rebuild_tensor

from jaxlm.models import CheckpointError
from jaxlm.models.torch_pickle import read_torch_checkpoint

LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(content: Any, directory: Path, *, zipped: bool) -> Path:
    path = directory / "pytorch_model.bin"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_reads_as_in_torch(tensors: dict[str, Any], path: Path) -> None:
    found = read_torch_checkpoint(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        exact = tensor.detach().to(torch.float64)  # of every dtype here
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(found[name].astype(np.float64), exact.numpy(), err_msg=name)


@LAYOUTS
def test_every_dtype_reads_exactly(zipped: bool, tmp_path: Path) -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 50
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool]  # fmt: skip
    tensors = {str(dtype): x.abs().to(dtype) for dtype in dtypes}
    assert_reads_as_in_torch(tensors, save(tensors, tmp_path, zipped=zipped))


@LAYOUTS
def test_views_and_shared_storages_read_as_what_they_show(zipped: bool, tmp_path: Path) -> None:
    x = torch.arange(60.0).reshape(3, 4, 5)
    tensors = {
        "whole": x,
        "transposed": x.transpose(0, 2),
        "slice": x[1:, ::2, 1:4],
        "row": x[2, 3],
        "expanded": torch.arange(3.0)[:, None].expand(3, 4),
        "scalar": x[1, 1, 1],
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(x.transpose(1, 2)),
    }
    assert_reads_as_in_torch(tensors, save(tensors, tmp_path, zipped=zipped))


@LAYOUTS
def test_the_state_of_a_module_reads_with_its_metadata(zipped: bool, tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).state_dict()
    assert isinstance(state, collections.OrderedDict)
    assert hasattr(state, "_metadata")
    assert_reads_as_in_torch(state, save(state, tmp_path, zipped=zipped))


class Shell:
    """Unpickled, it runs a command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("write", ["zip", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_does_not_run(write: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "pytorch_model.bin", tmp_path / "trace"
    content = {"weight": torch.ones(2), "payload": Shell(f"touch {trace}")}
    if write == "pickle":
        path.write_bytes(pickle.dumps({"payload": Shell(f"touch {trace}")}))
    else:
        save(content, tmp_path, zipped=write == "zip")
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.system; only tensors and dictionaries") as caught:
        read_torch_checkpoint(path)
    assert str(path) in str(caught.value)
    assert not trace.exists()
    pickle.loads(pickle.dumps(content["payload"]))
    assert trace.exists()  # so it would have run


@LAYOUTS
def test_a_builtin_function_is_refused(zipped: bool, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"asks for __builtin__.print"):
        read_torch_checkpoint(save({"weight": print}, tmp_path, zipped=zipped))


@LAYOUTS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.ones(2), "epoch": 3}, "epoch is a int, no tensor"),
        ({"model": {"weight": torch.ones(2)}}, "model is a dict, no tensor"),
        ([torch.ones(2)], "holds no dictionary"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(content: Any, message: str, zipped: bool, tmp_path: Path) -> None:
    path = save(content, tmp_path, zipped=zipped)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_torch_checkpoint(path)
    assert str(path) in str(caught.value)


@LAYOUTS
def test_a_file_cut_short_anywhere_is_refused(zipped: bool, tmp_path: Path) -> None:
    path = save({"weight": torch.ones(4, 5), "bias": torch.ones(5)}, tmp_path, zipped=zipped)
    whole = path.read_bytes()
    for length in (*range(0, len(whole) - 1, 17), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"pytorch_model.bin is damaged or no PyTorch checkpoint"):
            read_torch_checkpoint(path)


@LAYOUTS
def test_damaged_bytes_never_raise_anything_but_a_checkpoint_error(zipped: bool, tmp_path: Path) -> None:
    path = save({"weight": torch.ones(3, 4), "bias": torch.nn.Parameter(torch.ones(4))}, tmp_path, zipped=zipped)
    whole, rng = np.fromfile(path, np.uint8), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        damaged.tofile(path)
        try:
            read_torch_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 200  # the others damage a weight in the legacy layout, or a field that means nothing here


def tensor_record(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Pickles as a tensor over a storage of six elements, whether or not it lies within them."""

    class Record:
        def __reduce__(self) -> tuple[Any, ...]:
            storage: Any = torch.ones(6)
            return rebuild_tensor, (storage._typed_storage(), offset, shape, strides, False, collections.OrderedDict())

    return Record()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(1, (6,), (1,)), (0, (2, 3), (4, 1)), (-1, (2,), (1,)), (5, (3,), (-1,)), (0, (-2,), (1,))],
)
@LAYOUTS
def test_a_tensor_outside_its_storage_is_refused(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...], zipped: bool, tmp_path: Path
) -> None:
    path = save({"weight": tensor_record(offset, shape, strides)}, tmp_path, zipped=zipped)
    with pytest.raises(CheckpointError, match="a tensor re"):
        read_torch_checkpoint(path)


def test_a_text_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 440473133\n")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is damaged or no PyTorch checkpoint"):
        read_torch_checkpoint(path)
