"""Reads `pytorch_model.bin` without PyTorch.

A pickle can run any code while it loads. This unpickler builds tensors, dictionaries and nothing else: every name that
it does not know is an error. Both layouts are read: the zip archive (PyTorch 1.6 and later) and the stream before it.
The formats are those of `torch.save` (torch/serialization.py).
"""

import collections
import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jaxlm.models.config import CheckpointError

_STORAGE_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# What a damaged file may raise, as 12,000 files with a few random bytes showed; pickle itself promises no shorter list.
_DAMAGE = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, ValueError,
           TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError)  # fmt: skip


class _Storage:
    """A flat array; in the legacy layout its bytes come after the pickle that refers to it."""

    def __init__(self, dtype: type, values: np.ndarray | None = None):
        self.dtype = np.dtype(dtype)
        self.values = values


class _Tensor:
    """A strided view of a storage, made into an array once the storage has its bytes."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def to_numpy(self) -> np.ndarray:
        values = self.storage.values
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if values is None or min((*self.shape, *self.strides, self.offset), default=0) < 0:
            raise CheckpointError("a tensor refers to a storage that is not there")
        if 0 in self.shape:
            return np.zeros(self.shape, values.dtype)
        if last >= len(values):
            raise CheckpointError(f"a tensor reaches element {last} of a storage of {len(values)}")
        strides = [s * values.dtype.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, load_storage):
        super().__init__(file)
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise CheckpointError(f"the pickle asks for {module}.{name}; only tensors and dictionaries are read")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *_rest = pid
        if kind != "storage":
            raise CheckpointError(f"the pickle refers to a {kind!r}; only tensors are read")
        return self._load_storage(dtype, key, size)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("the archive holds no data.pkl")
        prefix = pickles[0].removesuffix("data.pkl")
        storages: dict[str, _Storage] = {}

        def load_storage(dtype: type, key: str, size: int) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype, np.frombuffer(archive.read(f"{prefix}data/{key}"), dtype)[:size])
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), load_storage).load()


def _read_legacy(path: Path) -> Any:
    storages: dict[str, _Storage] = {}

    def load_storage(dtype: type, key: str, size: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype))

    with open(path, "rb") as file:

        def load() -> Any:
            return _Unpickler(file, load_storage).load()

        if load() != _LEGACY_MAGIC:
            raise CheckpointError("it is neither of PyTorch's two layouts")
        load()  # protocol version
        load()  # byte order and type sizes of the machine that wrote it
        content, keys = load(), load()
        for key in keys:
            count = int(np.frombuffer(file.read(8), "<i8")[0])
            dtype = storages[key].dtype
            storages[key].values = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return content


def read_torch_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a `pytorch_model.bin` by name, in the dtypes in which they were saved.

    Raises:
      CheckpointError: the file is damaged, or holds anything but tensors and dictionaries.
    """
    path = Path(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        if not isinstance(content, dict):
            raise CheckpointError("it holds no dictionary of tensors")
        for name, value in content.items():
            if not isinstance(value, _Tensor):
                raise CheckpointError(f"{name} is a {type(value).__name__}, no tensor")
        return {name: value.to_numpy() for name, value in content.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint: {type(error).__name__}: {error}") from None
