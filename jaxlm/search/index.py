"""An index on disk: documents, their vectors, and a manifest that says what they were made of.

    DIRECTORY/manifest.json     the plan it follows (model, documents, prompts, by hash), counts, dimension, versions
    DIRECTORY/vectors.npy       [documents, dimension] float32 or float16, of length 1
    DIRECTORY/documents.jsonl   {"id": ..., "title": ..., "text": ...}, a line each, in the order of the vectors
    DIRECTORY/offsets.npy       [documents + 1] int64, where each of these lines begins

It is made in `.DIRECTORY.partial`, a part of the vectors at a time, and moved to its place when it is whole: what was
stopped goes on from its last part, and nothing that is there is half an index.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

import jaxlm
from jaxlm.atomic import write_atomically
from jaxlm.console import Console
from jaxlm.data.sources import counted
from jaxlm.errors import UserError
from jaxlm.models import CheckpointError, hub
from jaxlm.search.collection import Entry, Reader

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to vectors `[texts, dimension]`, of finite numbers."""

_FORMAT = 2  # 1 held hashes of all files in the model's directory
# What decides the vectors, of a plan: what is said where it differs. The model's and the documents' places do not, nor
# does the query's prompt; they are noted anew.
_CHANGES = {
    "model_sha256": "the model has changed", "documents_sha256": "the documents have changed",
    "document_prompt": "the prompt has changed", "max_length": "max_length has changed",
    "dtype": "the type of the vectors has changed", "products": "products were computed in {old}, and are in {new} now",
}  # fmt: skip
_PART = 8192  # documents whose vectors are written at once: what a kill costs at most


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides an index's content."""

    model: str  # hub name, or absolute directory
    model_sha256: str
    sources: tuple[str, ...]
    documents_sha256: str  # of the files and of how they are read
    document_prompt: str = ""  # goes before each document
    query_prompt: str = ""  # goes before each query
    max_length: int | None = None
    dtype: Literal["float32", "float16"] = "float32"
    products: str = "float32"  # what they are computed in

    def change_from(self, other: "Plan") -> str | None:
        """Why vectors made by another plan do not serve this one; None where they do."""
        for name, change in _CHANGES.items():
            old, new = getattr(other, name), getattr(self, name)
            if old != new:
                return change.format(old=old, new=new)
        return None


def sha256_of_files(paths: Sequence[Path], *more: str) -> str:
    """Of the files' contents, in order, and of further text."""
    digest = hashlib.sha256(json.dumps(more).encode())
    for path in paths:
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def sha256_of_model(directory: Path) -> str:
    """Of the files of a model directory that decide what it computes, and of their names."""
    files = hub.files_of(directory)
    return sha256_of_files(files, *(str(path.relative_to(directory)) for path in files))


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float32; a vector of zeros stays as it is."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


class Index:
    """An index, opened; vectors and documents stay on disk until they are asked for.

    Raises:
      UserError: `directory` holds no index, or a damaged one.
    """

    def __init__(self, directory: Path):
        manifest = read_manifest(directory)
        if manifest is None:
            raise UserError(
                f"{directory} holds no index; make one: python -m jaxlm search MODEL --documents FILE "
                f"--index {directory}"
            )
        self.directory, self.plan, self.manifest = directory, manifest["plan"], manifest
        try:
            self.vectors = np.load(directory / "vectors.npy", mmap_mode="r", allow_pickle=False)
            self._offsets = np.load(directory / "offsets.npy", mmap_mode="r", allow_pickle=False)
            # Mapped, as metrics want a thousand documents of each query: opening the file for each would take longer.
            self._lines = np.memmap(directory / "documents.jsonl", np.uint8, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(directory, str(error)) from None
        expected = (manifest["documents"], manifest["dimension"])
        if self.vectors.shape != expected or str(self.vectors.dtype) != self.plan.dtype:
            raise _damaged(
                directory,
                f"vectors.npy holds {self.vectors.dtype} {self.vectors.shape}, not {self.plan.dtype} {expected}",
            )
        if self._offsets.shape != (expected[0] + 1,) or int(self._offsets[-1]) != len(self._lines):
            raise _damaged(directory, "documents.jsonl is not as long as offsets.npy says")

    def __len__(self) -> int:
        return len(self.vectors)

    def document(self, number: int) -> Entry:
        return self._entry(self._lines[self._offsets[number] : self._offsets[number + 1]].tobytes())

    def ids(self) -> Iterator[str]:
        """The ids of all documents."""
        with open(self.directory / "documents.jsonl", "rb") as file:
            for line in file:
                yield self._entry(line).id

    def _entry(self, line: bytes) -> Entry:
        try:
            return Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise _damaged(self.directory, f"documents.jsonl: {error}") from None


def _damaged(directory: Path, reason: str) -> UserError:
    return UserError(f"the index {directory} is damaged ({reason}); remove it and make it again")


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """An index's manifest, its `plan` as `Plan`; None where there is none.

    Raises:
      UserError: it is damaged, or of another version of jaxlm.
    """
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise UserError(
                f"the index {directory} has format {manifest['format']}; this jaxlm reads {_FORMAT}: remove it and "
                "make it again"
            )
        return manifest | {
            "plan": _plan_of(manifest["plan"]),
            "documents": int(manifest["documents"]),
            "dimension": int(manifest["dimension"]),
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, f"manifest.json: {type(error).__name__} {error}") from None


def state_of(directory: Path, plan: Plan) -> str | None:
    """What keeps an index from being what the plan says ("the documents have changed"); None where nothing does.

    Raises:
      UserError: the directory holds something that is no index.
    """
    manifest = read_manifest(directory) if directory.exists() else None
    if manifest is None:
        if directory.is_file():
            raise UserError(f"--index {directory} is a file; a directory is meant")
        if directory.is_dir() and any(directory.iterdir()):
            raise UserError(f"--index {directory} is not empty and holds no index; choose another directory")
        return "there is none yet"
    if (change := plan.change_from(manifest["plan"])) is not None:
        return change
    Index(directory)
    shutil.rmtree(directory / "parts", ignore_errors=True)  # a kill between the last two steps of `build` leaves them
    return None


def note(directory: Path, plan: Plan) -> None:
    """Notes in an index that is as the plan says where its model and documents lie now, and the query's prompt.

    Raises:
      UserError: the prompt has changed, and that cannot be written.
    """
    manifest = read_manifest(directory)
    if manifest is not None and manifest["plan"] != plan:
        try:
            _write_manifest(directory, manifest | {"plan": dataclasses.asdict(plan)})
        except OSError as error:
            if plan.query_prompt != manifest["plan"].query_prompt:
                raise UserError(f"{directory}: the query's prompt cannot be noted: {error.strerror}") from None


def _write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    write_atomically(directory / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _plan_of(values: dict[str, Any]) -> Plan:
    return Plan(**values | {"sources": tuple(values["sources"])})


def _unfinished(path: Path) -> Plan | None:
    """The plan of an index that was stopped; None where there is none, or one that another version began."""
    try:
        return _plan_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build(directory: Path, plan: Plan, reader: Reader, load: Callable[[], Embed], console: Console) -> None:
    """Makes an index, or finishes one that was stopped.

    Args:
      load: gives the model; it is asked once the documents have been read and found good.

    Raises:
      UserError, CheckpointError: documents or model cannot be used; nothing is left behind then but vectors that were
        finished.
    """
    above = next((parent for parent in directory.absolute().parents if parent.exists()), directory)
    if not above.is_dir():
        raise UserError(f"--index {directory}: {above} is a file, and no directory")
    if directory.is_mount():
        raise UserError(f"--index {directory} is where a disk is mounted; name a directory in it")
    directory = directory.resolve()  # what a link names is made anew beside it
    partial = directory.absolute().with_name(f".{directory.absolute().name}.partial")
    parts = partial / "parts"
    made = [parent for parent in partial.parents if not parent.exists()]
    begun = _unfinished(parts / "plan.json")
    if begun is not None and (change := plan.change_from(begun)) is not None:
        console.say(f"the unfinished index {partial} is thrown away: {change}")
        begun = None
    try:
        if begun is None:
            shutil.rmtree(partial, ignore_errors=True)
            parts.mkdir(parents=True)
            with console.phase("reading documents") as remarks:
                count = _write_documents(partial, reader)
                remarks.append(f"{count} documents")
            write_atomically(parts / "left_out.json", json.dumps(reader.skipped))
            text = json.dumps(dataclasses.asdict(plan))
            write_atomically(parts / "plan.json", text)  # last: from here on it can be resumed
        offsets = np.load(partial / "offsets.npy")
        count = len(offsets) - 1
        left_out = json.loads((parts / "left_out.json").read_text())
        if left_out:
            console.say(f"documents left out: {counted(left_out)}")
        files = [parts / f"{first}.npy" for first in range(0, count, _PART)]
        _embed_parts(partial / "documents.jsonl", files, plan, load, console)
    except (UserError, CheckpointError):
        if not any(parts.glob("*.npy")):
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):  # of one in which something else lies by now
                for parent in made:
                    parent.rmdir()
        raise
    dimension = np.load(files[0], mmap_mode="r").shape[1]
    vectors = np.lib.format.open_memmap(
        partial / "vectors.npy", mode="w+", dtype=np.dtype(plan.dtype), shape=(count, dimension)
    )
    for number, file in enumerate(files):
        vectors[number * _PART : (number + 1) * _PART] = np.load(file)
    vectors.flush()
    manifest = {
        "format": _FORMAT,
        "plan": dataclasses.asdict(plan),
        "documents": count,
        "left_out": left_out,
        "dimension": dimension,
        "versions": {"jaxlm": jaxlm.__version__, "python": platform.python_version()}
        | {name: version(name) for name in ("jax", "numpy")},
    }
    _write_manifest(partial, manifest)
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)
    shutil.rmtree(directory / "parts")


def _write_documents(partial: Path, reader: Reader) -> int:
    offsets = [0]
    with open(partial / "documents.jsonl", "wb") as file:
        for entry in reader:
            line = json.dumps(entry._asdict(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
    np.save(partial / "offsets.npy", np.array(offsets, np.int64))
    return len(offsets) - 1


def _embed_parts(
    documents: Path, files: Sequence[Path], plan: Plan, load: Callable[[], Embed], console: Console
) -> None:
    """Writes the vectors of those parts that are not there."""
    missing = [file for file in files if not file.exists()]
    if not missing:
        return
    if len(missing) < len(files):
        console.say(f"{len(files) - len(missing)} of {len(files)} parts are there from an earlier start")
    embed = load()
    with open(documents, "rb") as lines:
        for number, file in enumerate(files, 1):
            entries = [Entry(**json.loads(line)) for line in itertools.islice(lines, _PART)]
            if file.exists():
                continue
            with console.phase(f"embedding documents, part {number} of {len(files)}") as remarks:
                vectors = normalised(embed([plan.document_prompt + whole_text(entry) for entry in entries]))
                remarks.append(f"{len(entries)} documents")
            _save_atomically(file, vectors.astype(plan.dtype))


def whole_text(entry: Entry) -> str:
    """A document as it is embedded and read: title, then text."""
    return f"{entry.title} {entry.text}".strip()


def _save_atomically(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())
