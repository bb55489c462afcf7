"""What a worker process of `prepare` does: a chunk of documents becomes packed rows. Imports neither jax nor flax."""

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
        texts: list[str] = []
        of: list[tuple[int, int]] = []  # document and piece of each section
        documents: Counter[str] = Counter()
        splits: list[str] = []
        for piece in pieces:
            if (text := reader.text(piece)) is None:
                continue
            for number, section in enumerate(sections(text)):
                texts.append(section)
                of.append((piece.document, piece.piece))
                splits.append(self._split(section))
                documents[splits[-1]] += piece.piece == 0 and number == 0
        ids = self._tokenizer.tokenize_texts(texts)
        dtype = self._tokenizer.token_dtype
        lengths = np.array([len(part) for part in ids], np.int64) // dtype.itemsize
        document, piece_number = np.array(of, np.int64).reshape(-1, 2).T
        tokens: Counter[str] = Counter()
        records, count, most, left = {}, {}, {}, {}
        for length in self._lengths:
            about, section_of = rows.cut(lengths, length - self._special, document, piece_number)
            for split in dict.fromkeys(splits):
                chosen = np.array([name == split for name in splits])
                windows = Windows(
                    about[chosen[section_of]],
                    np.frombuffer(
                        b"".join(part for part, name in zip(ids, splits, strict=True) if name == split), dtype
                    ),
                )
                tokens[split] = len(windows.tokens)
                target = (split, length)
                count[target] = len(windows.about)
                records[target], most[target], left[target] = rows.pack(windows, length, self._special, _LEAST_FILL)
        return Packed(records, count, most, left, reader.counts, reader.dropped, tokens, documents)

    def _split(self, section: str) -> str:
        """By hash, so that a document met twice falls on one side; a long document is dealt section by section."""
        digest = hashlib.blake2b(section.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
        share = int.from_bytes(digest, "little") / 2**64
        return "validation" if share < self._settings.validation else "train"


_packer: Packer


def start(parent: int, *arguments: object) -> None:
    """Makes this process a worker, which ends when its parent does, however that ends."""
    global _packer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has its parent's handler
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
