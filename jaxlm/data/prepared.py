"""Reads what `prepare` wrote: any row at once, by its number, without an index in memory."""

import bisect
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data import rows
from jaxlm.data.rows import Windows
from jaxlm.errors import UserError

_FORMAT = 1
# As array_record's data source asks for it; an index that stays on disk makes the memory of readers constant.
_READER_OPTIONS = "readahead_buffer_size:0,index_storage_option:offloaded,footer_prefetch_bytes:0"


class Document(NamedTuple):
    """A document, put together again from its windows."""

    part: int
    number: int  # within its part
    tokens: np.ndarray  # without special tokens


def is_prepared(spec: str | None) -> bool:
    """Whether a data setting names a directory that `prepare` has written to."""
    return spec is not None and (Path(spec) / "plan.json").is_file()


class PreparedData:
    """A directory that `prepare` wrote.

    Raises:
      UserError: it is not whole.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        try:
            self.manifest: dict[str, Any] = json.loads((self.directory / "manifest.json").read_text())
        except FileNotFoundError:
            raise UserError(f"{directory}: its preparation has not ended; the same prepare command goes on") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{directory}/manifest.json is damaged: {error}") from None
        if self.manifest["format"] != _FORMAT:
            raise UserError(f"{directory} has format {self.manifest['format']}; this jaxlm reads {_FORMAT}")
        self.tokenizer = self.directory / "tokenizer"
        self._dtype = np.dtype(self.manifest["token_dtype"])

    @property
    def next_sentence(self) -> bool:
        """Whether windows leave room for the second [SEP] of a pair."""
        return bool(self.manifest["special_tokens_per_window"] == rows.specials(next_sentence=True))

    def rows(self, split: str, row_length: int) -> "PreparedRows":
        """The rows of a split.

        Raises:
          UserError: there are none of this length, or a shard is missing or cut short.
        """
        lengths = self.manifest["splits"].get(split)
        if lengths is None:
            hint = (
                f" (--data.validation was {self.manifest['validation']:g} in prepare)" if split == "validation" else ""
            )
            raise UserError(f"{self.directory} has no {split} rows{hint}; it has {', '.join(self.manifest['splits'])}")
        if str(row_length) not in lengths:
            raise UserError(
                f"{self.directory} has rows of length {', '.join(lengths)}, and --data.max_length (or a phase's) is "
                f"{row_length}: prepare it with this config, or change the length"
            )
        entry = lengths[str(row_length)]
        for shard in entry["shards"]:
            path = self.directory / shard["file"]
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise UserError(f"{path} {found}; the manifest says {shard['bytes']}: copy or prepare it again")
        return PreparedRows(self, split, entry)

    def documents(self) -> Iterator[Document]:
        """All documents of the corpus in the order of its sources, train and validation: to look at, and for tests."""
        length = str(self.manifest["row_lengths"][-1])
        shards = sorted(
            (shard["part"], shard["file"])
            for lengths in self.manifest["splits"].values()
            for shard in lengths.get(length, {"shards": []})["shards"]
        )
        for part, members in itertools.groupby(shards, key=lambda shard: shard[0]):
            windows = []
            for _, file in members:
                windows += [rows.parse(record, self._dtype) for record in _reader(self.directory / file).read_all()]
            about, tokens = Windows.join(windows)
            ends = np.cumsum(about["length"], dtype=np.int64)
            order = np.argsort(about[["document", "piece", "window"]], kind="stable")
            for number, group in itertools.groupby(order.tolist(), key=lambda w: int(about["document"][w])):
                spans = [tokens[ends[w] - about["length"][w] : ends[w]] for w in group]
                yield Document(part, number, np.concatenate(spans))


class PreparedRows:
    """The rows of one split and length, by number."""

    def __init__(self, data: PreparedData, split: str, entry: dict[str, Any]):
        self._data, self._dtype = data, np.dtype(data.manifest["token_dtype"])
        self._shards = entry["shards"]
        self._ends = list(itertools.accumulate(shard["rows"] for shard in self._shards))
        self.most_windows: int = entry["most_windows"]
        self.windows: int = entry["windows"]
        self.tokens = data.manifest["tokens"][split] + self.windows * data.manifest["special_tokens_per_window"]

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def manifest(self) -> dict[str, Any]:
        """Of the whole directory."""
        return self._data.manifest

    def read(self, numbers: Sequence[int]) -> list[Windows]:
        """The windows of the given rows."""
        wanted = np.asarray(numbers, np.int64)
        shards = np.searchsorted(self._ends, wanted, side="right")
        found = [b""] * len(wanted)

        def read(shard: int) -> None:
            here = np.flatnonzero(shards == shard)
            entry = self._shards[shard]
            places = wanted[here] - (self._ends[shard] - entry["rows"])
            records = _reader(self._data.directory / entry["file"]).read(places.tolist())
            for place, record in zip(here.tolist(), records, strict=True):
                found[place] = record

        list(_threads().map(read, np.unique(shards).tolist()))
        return [rows.parse(record, self._dtype) for record in found]

    def part(self, number: int) -> int:
        """The part of the corpus that a row comes from."""
        return int(self._shards[bisect.bisect_right(self._ends, number)]["part"])

    def describe(self, number: int) -> str:
        """Where a row's text came from, for messages."""
        part = self.part(number)
        sources = [s["path"] for s in self._data.manifest["sources"] if s["part"] == part]
        files = sources[0] if len(sources) == 1 else f"{sources[0]} to {sources[-1]}"
        documents = sorted({int(d) + 1 for d in self.read([number])[0].about["document"]})
        listing = ", ".join(map(str, documents[:3])) + (" ..." if len(documents) > 3 else "")
        return f"{files}, document {listing}"


_open_files: collections.OrderedDict[Path, Any] = collections.OrderedDict()  # the one last used is last
_open_files_lock = threading.Lock()


def _reader(path: Path) -> Any:
    """The reader of a shard. A corpus may have more shards than a process may have open files: the last used are."""
    from array_record.python.array_record_module import ArrayRecordReader

    with _open_files_lock:
        reader = _open_files.pop(path, None)
        if reader is None:
            reader = ArrayRecordReader(str(path), options=_READER_OPTIONS, file_reader_buffer_size=1 << 15)
        _open_files[path] = reader
        while len(_open_files) > _most_open():
            _open_files.popitem(last=False)  # closed when the last who reads from it is done
    return reader


@functools.cache
def _most_open() -> int:
    """Half of what the system lets a process have, after asking for as much as it gives."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(16, min(soft, 1 << 16) // 2) if soft > 0 else 1 << 15


@functools.cache
def _threads() -> concurrent.futures.Executor:
    """For shards that are read at once: they may lie in a bucket."""
    return concurrent.futures.ThreadPoolExecutor(16, "jaxlm-shards")
