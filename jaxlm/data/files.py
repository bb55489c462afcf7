"""Local files, plain or compressed (.gz, .xz): their lines, their JSON, and what a row of them is."""

import contextlib
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from jaxlm.errors import UserError

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
OTHER_ENCODING = " (in another encoding all of it has to be written anew: iconv -f CP1252 -t UTF-8 FILE > NEW)"
_OPENERS: dict[str, Callable[[Path, str], Any]] = {".gz": gzip.open, ".xz": lzma.open}


class Row(NamedTuple):
    """One row: its line number (from 1; 0 where it is a file), its values by position or by name, or what is wrong with
    it."""

    line: int
    values: list[Any] | dict[str, Any]
    problem: str | None = None
    part: str | None = None  # of a json file, where `line` counts items: the list's name, or ""; or the row's own file

    @property
    def place(self) -> str:
        if self.part is None:
            return f"line {self.line}"
        if not self.line:
            return self.part
        return f"item {self.line}" + (f" of {self.part}" if self.part else "")


def data_format(path: Path) -> str:
    """`.csv`, `.tsv`, ... of a path, whatever its compression.

    Raises:
      UserError: no such format.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory; a file is meant")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise UserError(f"{path}: the name should end in one of {', '.join(FORMATS)} (then .gz or .xz if compressed)")
    return suffixes[-1]


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file for reading, decompressing by its name.

    Raises:
      UserError: there is no such file, or it cannot be opened.
    """
    try:
        opener = _OPENERS.get(path.suffix.lower())
        return opener(path, "rb") if opener else open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """`open_bytes` for the length of a block, in which damage becomes a message.

    Raises:
      UserError: the file cannot be opened or read, or its compressed stream is damaged.
    """
    with open_bytes(path) as file:
        try:
            refuse_other_bytes(path, file.peek(2))  # type: ignore[attr-defined]
            yield file
        except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
            raise UserError(f"{path}: the compressed file is damaged ({error})") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None


_PACKED = {
    b"\x1f\x8b": "is compressed: give it a name that ends in .gz",
    b"\xfd7zXZ": "is compressed: give it a name that ends in .xz",
    b"PK\x03\x04": "is a zip archive, as Excel's files are: unpack it, or write it as csv",
}  # by their first bytes


def refuse_other_bytes(path: Path, head: bytes) -> None:
    """Stops where the first bytes are those of UTF-16 or of a compressed file."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(head) > 1 and 0 in head[:2]):
        raise UserError(f"{path} is UTF-16; UTF-8 is meant: iconv -f UTF-16 -t UTF-8 {path.name} > NEW")
    for magic, advice in _PACKED.items():
        if head.startswith(magic):
            raise UserError(f"{path} {advice}")


def is_text_table(source: str) -> bool:
    """Whether a source is a file whose columns have some sign between them."""
    return bool({".txt", ".tsv", ".csv"} & set(Path(source).suffixes))


def refuse_json_in_txt(path: Path) -> None:
    """Stops where the lines of a txt file are JSON objects."""
    if path.is_file() and data_format(path) == ".txt" and is_json_object(next((line for _, line in lines(path)), None)):
        raise UserError(f"{path}: its first line is a JSON object; name it .jsonl")


def is_json_object(line: str | None) -> bool:
    try:
        return line is not None and line.startswith("{") and bool(json.loads(line))
    except json.JSONDecodeError:
        return False


def lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines without their ends; None for a line that is not UTF-8. A leading byte-order mark is dropped.

    Raises:
      UserError: the compressed stream is damaged, the file is UTF-16, or it has carriage returns for newlines.
    """
    number = 0
    try:
        with open_bytes(path) as file:
            for number, raw in enumerate(file, 1):
                if number == 1:
                    refuse_other_bytes(path, raw)
                    if not raw.endswith(b"\n") and raw.count(b"\r") > 1:  # one is a text's
                        raise UserError(
                            f"{path}: its lines end in carriage returns alone, as on an old Mac; newlines are meant: "
                            f"tr '\\r' '\\n' < {path.name} > NEW"
                        )
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    yield number, None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise UserError(f"{path}, after line {number}: the compressed file is damaged ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """`json.loads`, with U+FFFD for half a surrogate pair, as of an emoji that was cut: no tokenizer takes that."""
    value = json.loads(text)
    return _mended(value) if "\\ud" in text or "\\uD" in text else value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF_A_PAIR.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value


def read_json(path: Path) -> Any:
    """The content of a json file.

    Raises:
      UserError: there is no such file, or it is damaged or no JSON.
    """
    with reading(path) as file:
        raw = file.read()
    try:
        return parse_json(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}{OTHER_ENCODING}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from None
