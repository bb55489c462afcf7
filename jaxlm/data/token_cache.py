"""The tokens of large sets of texts, kept from one run to the next by the hash of the texts and of the tokenizer."""

import contextlib
import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from jaxlm.atomic import write_atomically
from jaxlm.data.tokenizer import Encoded, TextTokenizer

log = logging.getLogger("jaxlm")

_WORTH_KEEPING = 4 << 20  # characters: a second of tokenising, or so
_MOST_BYTES = 4 << 30  # of all files; those not used for longest go first


def token_cache() -> Path:
    """Where the files lie; `JAXLM_TOKEN_CACHE` overrides the place."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("JAXLM_TOKEN_CACHE") or os.path.join(base, "jaxlm", "tokens"))


def encode(
    tokenizer: TextTokenizer, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 512
) -> Encoded:
    """`tokenizer.encode`, whose result is kept where it took long; a file that cannot be used is no error."""
    columns = [texts] if pairs is None else [texts, pairs]
    if sum(map(len, texts)) + sum(map(len, pairs or ())) < _WORTH_KEEPING:
        return tokenizer.encode(texts, pairs, max_length)
    path = token_cache() / f"{_key(tokenizer, columns, max_length)}.npz"
    if (found := _read(path)) is not None:
        log.info("tokens of %d texts found in %s", len(texts), path)
        return found
    encoded = tokenizer.encode(texts, pairs, max_length)
    with contextlib.suppress(OSError):
        _write(path, encoded, tokenizer.token_dtype)
    return encoded


def _key(tokenizer: TextTokenizer, columns: Sequence[Sequence[str]], max_length: int) -> str:
    types = len(columns) if len(columns) == 1 or tokenizer.tells_pairs_apart else "2 of one type"
    digest = hashlib.sha256(f"{tokenizers.__version__} {tokenizer.sha256} {max_length} {types}".encode())
    for column in columns:
        digest.update(np.fromiter(map(len, column), np.int64, len(column)).tobytes())
        digest.update("".join(column).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _read(path: Path) -> Encoded | None:
    try:
        with np.load(path) as file:
            ids, types = file["input_ids"].astype(np.int32), file["token_type_ids"]
            found = Encoded(ids, types, file["offsets"], int(file["truncated"]))
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not there, or damaged
        return None
    return found


def _write(path: Path, encoded: Encoded, dtype: np.dtype) -> None:
    content = io.BytesIO()
    np.savez(content, **encoded._replace(input_ids=encoded.input_ids.astype(dtype))._asdict())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    files = sorted(path.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    kept = np.cumsum([file.stat().st_size for file in files])
    for file, size in zip(files, kept, strict=True):
        if size > _MOST_BYTES and file != path:
            file.unlink()
