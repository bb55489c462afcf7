"""Shards of prepared rows, as `jaxlm.data.prepare` writes them: an array_record file for each split and row length."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.atomic import write_atomically
from jaxlm.data import rows
from jaxlm.data.chunks import Packed, Target
from jaxlm.data.rows import Windows

_WRITER_OPTIONS = "group_size:1,uncompressed"


class Shard(NamedTuple):
    part: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.part:05}-{self.number:03}"


class ShardWriter:
    """Writes a shard's files under other names, and gives them theirs when all are whole."""

    def __init__(self, output: Path, shard: Shard, special: int):
        self._output, self._shard, self._special = output, shard, special
        self._writers: dict[Target, Any] = {}
        self._left: dict[Target, list[Windows]] = {}
        self._rows: Counter[Target] = Counter()
        self._windows: Counter[Target] = Counter()
        self._most: dict[Target, int] = {}
        self._counts: dict[str, Counter[str]] = {n: Counter() for n in ("counts", "dropped", "tokens", "documents")}

    def _path(self, target: Target, final: bool) -> Path:
        name = f"{target[0]}-{self._shard.name}.array_record"
        return self._output / str(target[1]) / (name if final else f".{name}.partial")

    def _write(self, target: Target, records: list[bytes], most: int) -> None:
        if not records:
            return
        from array_record.python.array_record_module import ArrayRecordWriter

        if target not in self._writers:
            path = self._path(target, final=False)
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            self._writers[target] = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
        for record in records:
            self._writers[target].write(record)
        self._rows[target] += len(records)
        self._most[target] = max(self._most.get(target, 0), most)

    def add(self, packed: Packed) -> None:
        self._windows.update(packed.windows)
        for target, records in packed.records.items():
            self._write(target, records, packed.most_windows[target])
            if len(packed.left[target].about):
                self._left.setdefault(target, []).append(packed.left[target])
        for name, counter in self._counts.items():
            counter.update(getattr(packed, name))

    def close(self) -> None:
        """Packs what was left over, and makes the shard real."""

        for target, parts in self._left.items():
            records, most, _ = rows.pack(Windows.join(parts), target[1], self._special)
            self._write(target, records, most)
        for target, writer in self._writers.items():
            writer.close()
            os.replace(self._path(target, final=False), self._path(target, final=True))
        files = [
            {
                "split": target[0],
                "row_length": target[1],
                "rows": self._rows[target],
                "windows": self._windows[target],
                "most_windows": self._most[target],
            }
            for target in sorted(self._writers)
        ]
        state = {"files": files} | {name: dict(sorted(counter.items())) for name, counter in self._counts.items()}
        write_atomically(self._output / "state" / f"{self._shard.name}.json", json.dumps(state) + "\n")
