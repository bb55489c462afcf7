"""What a worker process of `prepare` does: a chunk of documents becomes packed rows. Imports neither jax nor flax."""

import hashlib
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import rows
from jaxlm.data.corpus import Piece, Reader, sections
from jaxlm.data.rows import Windows
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError

Target = tuple[str, int]  # (split, row length)
_LEAST_FILL = 0.98  # rows below this wait for more windows, up to the end of their shard


class Packed(NamedTuple):
    """The rows of a chunk."""

    records: dict[Target, list[bytes]]
    windows: dict[Target, int]  # all of them, left over or not
    most_windows: dict[Target, int]  # in a row
    left: dict[Target, Windows]  # windows whose rows would not have been full
    counts: Counter[str]
    dropped: Counter[str]
    tokens: Counter[str]  # by split, special tokens not counted
    documents: Counter[str]  # by split


class Packer:
    """Everything a worker needs to know, made once a process."""

    def __init__(self, tokenizer: Path, sources: list[str], settings: DataSettings, lengths: list[int], special: int):
        self._tokenizer = TextTokenizer.load(tokenizer)
        self._sources, self._settings, self._lengths, self._special = sources, settings, lengths, special

    def pack(self, pieces: list[Piece]) -> Packed:
        """Tokenises pieces, deals them to train and validation, cuts them into windows and packs these."""
        reader = Reader(self._sources, self._settings)
        tokens: Counter[str] = Counter()
        documents: Counter[str] = Counter()
        found: dict[Target, list[Windows]] = {}
        for piece in pieces:
            text = reader.text(piece)
            if text is None:
                continue
            before = dict.fromkeys(self._lengths, 0)  # windows of the piece so far
            for number, section in enumerate(sections(text)):
                split = self._split(section)
                ids = self._tokenizer.tokenize_text(section)
                tokens[split] += len(ids)
                documents[split] += piece.piece == 0 and number == 0
                for length in self._lengths:
                    about = rows.cut(ids, length - self._special, piece.document, piece.piece, before[length])
                    before[length] += len(about)
                    found.setdefault((split, length), []).append(Windows(about, ids))
        records, count, most, left = {}, {}, {}, {}
        for target, parts in found.items():
            windows = Windows.join(parts)
            count[target] = len(windows.about)
            records[target], most[target], left[target] = rows.pack(windows, target[1], self._special, _LEAST_FILL)
        return Packed(records, count, most, left, reader.counts, reader.dropped, tokens, documents)

    def _split(self, section: str) -> str:
        """By hash, so that a document met twice falls on one side; a long document is dealt section by section."""
        digest = hashlib.blake2b(section.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        share = int.from_bytes(digest, "little") / 2**64
        return "validation" if share < self._settings.validation else "train"


_packer: Packer


def start(parent: int, *arguments: object) -> None:
    """Makes this process a worker, which ends when its parent does, however that ends."""
    global _packer
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _packer = Packer(*arguments)  # type: ignore[arg-type]


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def pack(pieces: list[Piece]) -> Packed | str:
    """The rows of a chunk; a message where the input has to be put right."""
    try:
        return _packer.pack(pieces)
    except UserError as error:
        return str(error)


def sha256(path: str) -> str:
    """Of a file as it lies on disk."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
