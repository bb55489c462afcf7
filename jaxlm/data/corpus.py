"""Raw text as documents, streamed: a corpus may be larger than memory, and one document larger than a corpus.

Documents come in *pieces* of at most a megabyte, cut at line ends, so that memory stays bounded. What is done about
dirt, and what is counted:

- bytes that are no UTF-8 become U+FFFD, which a BERT tokenizer drops (or stop with file and line: `data.bad_rows`);
- a byte-order mark is taken off; CR LF counts as LF; control characters are left to the tokenizer, which drops them;
- an empty document, a line that is no JSON object, a row without text is left out.

The text is in one column of a file, found by its head and said; a text that is a list of sentences is joined.
"""

import glob
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import files, readers
from jaxlm.data.columns import TEXT_NAMES, Columns, joined, keys_of, value_of
from jaxlm.data.header import looks_like_header
from jaxlm.data.schemes import is_scheme, scheme_rows
from jaxlm.errors import UserError, WhichColumn

log = logging.getLogger("jaxlm")

_BLOCK = 1 << 20  # bytes read at once
PIECE_BYTES = 1 << 20
_HEAD = 1000  # rows by which names of columns are known
SECTION_CHARACTERS = 1 << 16
_SEPARATORS = {"blank_lines": re.compile(rb"\n[ \t\r\f\v]*\n"), "line": re.compile(rb"\n"), "file": None}
_CONTROL = bytes(set(range(32)) - {9, 10, 13}) + b"\x7f"
_MANY_LINES = 1000  # of one document: more than a blank line usually is away
_MARK = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """A document, or a part of a long one, as its source holds it."""

    content: bytes | str  # bytes of a txt file, or a line of jsonl; a string where a library read it
    source: int  # number of its file
    document: int  # its number within the file, from 0
    piece: int  # its number within the document, from 0
    offset: int  # where it begins in the (decompressed) file: bytes, or rows
    column: str | None = None  # of a line of jsonl: the key of its text


def expand(spec: str, flag: str = "--data.train") -> list[str]:
    """The sources of a setting: a path, a glob, `tfds:NAME`, or several parted by commas; files of a glob are sorted.

    Raises:
      UserError: nothing is there.
    """
    sources: list[str] = []
    for item in filter(None, (part.strip() for part in spec.split(","))):
        if is_scheme(item) or Path(item).is_file():
            sources.append(item)
        else:
            found = sorted(path for path in glob.glob(item, recursive=True) if Path(path).is_file())
            if not found:
                if Path(item).is_dir():
                    raise UserError(f"{flag} {item} is a directory; name its files, as in '{item}/*.txt'")
                raise UserError(f"{flag} {item}: no such file, and no file matches it")
            sources += found
    if not sources:
        raise UserError(f"{flag} names no source")
    for source in sources:
        if not is_scheme(source):
            files.data_format(Path(source))
    return sources


def pieces(source: str, number: int, settings: DataSettings, *, tell: bool = True) -> Iterator[Piece]:
    """The documents of a source in order, long ones in several pieces.

    Args:
      tell: say which column is the text, where there are others.

    Raises:
      UserError: the source cannot be read, or which column is the text has to be told.
    """
    if is_scheme(source):
        rows: Iterator[files.Row] = scheme_rows(source, "train")
    elif (kind := files.data_format(Path(source))) == ".txt":
        yield from _txt(Path(source), number, settings.documents)
        return
    elif kind == ".jsonl":
        # Read anew for its head, as lines that are no objects may be many before it, and lines go to others unread.
        objects = (row for row in readers.read_rows(Path(source)) if isinstance(row.values, dict) and not row.problem)
        key = _column(source, keys_of(itertools.islice(objects, _HEAD)), None, settings, tell=tell)
        for document, (offset, line) in enumerate(_lines(Path(source))):
            yield Piece(line, number, document, 0, offset, key)
        return
    else:
        rows = readers.read_rows(Path(source))
    head: list[files.Row] = []
    readable: list[files.Row] = []
    while len(readable) < _HEAD and (row := next(rows, None)) is not None:
        head.append(row)
        readable += [row] * bool(row.values)
    header: Any = None
    if readable and isinstance(readable[0].values, dict):
        names = keys_of(row for row in readable if isinstance(row.values, dict))
    else:
        names = list(range(len(readable[0].values))) if readable else []
        header = _header(source, readable, settings) if readable else None
    column = _column(source, names, header, settings, tell=tell)
    for row in itertools.chain(head, rows):
        if row.values != header:
            yield Piece(_row_text(source, row, column, settings), number, row.line - 1, 0, row.line)
        header = None if row.values == header else header


def _header(source: str, rows: list[files.Row], settings: DataSettings) -> list[Any] | None:
    """The first of rows without keys, where it has the names of columns."""
    first: Any = rows[0].values
    names = [str(value).strip() for value in first]
    known = settings.text in names or any(name.lower() in TEXT_NAMES for name in names)
    auto = settings.header == "auto" and (known or looks_like_header(source, rows, settings))
    return first if settings.header == "yes" or auto else None


def _column(source: str, names: list[Any], header: list[Any] | None, settings: DataSettings, *, tell: bool) -> Any:
    """The column of the text, a key or a position; None where no row has any.

    Raises:
      UserError: it has to be told, or is not there.
    """
    if not names:
        return None
    columns = Columns(source, names, None if header is None else [str(value).strip() for value in header])
    found = columns.find("text", settings.text, TEXT_NAMES)
    if found is None and len(names) > 1:
        raise WhichColumn(f"{source}: which column is the text? {columns.offer('text')}")
    column = names[0] if found is None else found
    if tell:
        columns.say({"text": column})
    return column


def _row_text(source: str, row: files.Row, column: Any, settings: DataSettings) -> str:
    problem = row.problem
    if not problem and column is not None and isinstance(row.values, dict) != isinstance(column, str):
        problem = "an object among lists" if isinstance(row.values, dict) else "a list among objects"
    if not problem:
        try:
            return _text_of(row, column)
        except ValueError as error:
            problem = str(error)
    if settings.bad_rows == "error":
        raise UserError(f"{source}, {row.place}: {problem}; or leave such rows out: --data.bad_rows skip")
    return ""


def _text_of(row: files.Row, column: Any) -> str:
    """A row's text, "" where it is null; `ValueError`, which says what is wrong, where there is none."""
    if column is None:
        return ""
    if isinstance(row.values, dict) and column not in row.values:
        raise ValueError(f"a column is missing ({column})")
    text = joined(value_of(row, column))
    if text is not None and not isinstance(text, str):
        raise ValueError(f"text that is no string ({repr(text)[:60]})")
    return text or ""


def _blocks(path: Path) -> Iterator[bytes]:
    with files.reading(path) as file:
        while block := file.read(_BLOCK):
            yield block


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of each line; a line is never cut."""
    offset = 0
    with files.reading(path) as file:
        for line in file:
            yield offset, line
            offset += len(line)


def _txt(path: Path, number: int, mode: str) -> Iterator[Piece]:
    separator = _SEPARATORS[mode]
    document = piece = start = 0  # start: offset of `buffer`
    buffer = b""

    def ready(end: int, whole: bool) -> Iterator[Piece]:
        """The pieces of `buffer[:end]`; unless the document is whole, only those that more text cannot change."""
        nonlocal piece, document, start, buffer
        # White space at the end does not count: it may belong to a separator that has not been read to its end.
        while end > PIECE_BYTES and len(buffer[:end].rstrip()) > PIECE_BYTES:
            cut = _cut(buffer)
            yield Piece(buffer[:cut], number, document, piece, start)
            buffer, start, end, piece = buffer[cut:], start + cut, end - cut, piece + 1
        if whole:
            filled = bool(buffer[:end].strip())
            if filled:
                yield Piece(buffer[:end], number, document, piece, start)
            if filled or piece:
                document, piece = document + 1, 0
            buffer, start = buffer[end:], start + end

    lines = 0
    for block in _blocks(path):
        buffer += block
        lines += block.count(b"\n")
        if separator is not None:
            # Documents are sliced out of one block's text; cutting the buffer for each would copy it each time.
            text, offset, begin = buffer, start, 0
            for match in separator.finditer(text):
                buffer, start = text[begin : match.start()], offset + begin
                yield from ready(len(buffer), whole=True)
                begin = match.end()
            buffer, start = text[begin:], offset + begin
        yield from ready(len(buffer), whole=False)
    yield from ready(len(buffer), whole=True)
    if mode == "blank_lines" and document == 1 and lines > _MANY_LINES:
        log.warning(
            "%s: no blank line parts its %d lines: all are one document (--data.documents line: each is one)",
            path, lines,
        )  # fmt: skip


def _cut(buffer: bytes) -> int:
    """Where to end a piece: before the last line end (or white space) within its size, else between two characters."""
    for white in (b"\n", b" "):
        if (place := buffer.rfind(white, 1, PIECE_BYTES)) > 0:
            return place
    starts = (PIECE_BYTES - back for back in range(4) if buffer[PIECE_BYTES - back] & 0xC0 != 0x80)
    return next(starts, PIECE_BYTES)  # where a character starts, if these are any


class Reader:
    """Turns pieces into clean texts, and counts what it met.

    Args:
      sources: names, for messages.
      settings: the text's column, and whether bad bytes stop.
    """

    def __init__(self, sources: list[str], settings: DataSettings):
        self._sources, self._settings = sources, settings
        self._is_jsonl = [not is_scheme(s) and files.data_format(Path(s)) == ".jsonl" for s in sources]
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def text(self, piece: Piece) -> str | None:
        """The text of a piece; None where it is left out.

        Raises:
          UserError: it is bad, and the settings say to stop.
        """
        content, strict = piece.content, self._settings.bad_rows == "error"
        if isinstance(content, str):
            text = content
        else:
            text = self._decoded(content, piece, strict)
            if self._is_jsonl[piece.source]:
                if not text.strip():
                    return None
                try:
                    values = files.parse_json(text)
                    problem = None if isinstance(values, dict) else "no JSON object"
                except json.JSONDecodeError as error:
                    problem = f"no JSON: {error}"
                if problem:
                    if strict:
                        raise UserError(f"{self._place(piece)}: {problem}; or leave such out: --data.bad_rows skip")
                    self.dropped["no JSON object"] += 1
                    return None
                try:
                    text = _text_of(files.Row(0, values), piece.column)
                except ValueError as error:
                    if strict:
                        raise UserError(
                            f"{self._place(piece)}: {error}; or leave such rows out: --data.bad_rows skip"
                        ) from None
                    self.dropped["no text"] += 1
                    return None
        if not text.strip():
            if piece.piece == 0:
                self.dropped["empty"] += 1
            return None
        if piece.piece == 0:
            self.counts["documents"] += 1
        self.counts["characters"] += len(text)
        return text

    def _decoded(self, content: bytes, piece: Piece, strict: bool) -> str:
        if content.startswith(_MARK):
            self.counts["byte-order marks"] += 1
            content = content[len(_MARK) :]
        self.counts["bytes"] += len(content)
        self.counts["carriage returns"] += content.count(b"\r")
        self.counts["control characters"] += len(content) - len(content.translate(None, _CONTROL))
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            if strict:
                bad = piece._replace(offset=piece.offset + error.start)
                raise UserError(
                    f"{self._place(bad)}: not UTF-8; correct it, or have such bytes replaced: --data.bad_rows skip"
                ) from None
            text = content.decode("utf-8", errors="replace")
            self.counts["bad bytes replaced"] += text.count("\ufffd") - content.count(b"\xef\xbf\xbd")
            return text

    def _place(self, piece: Piece) -> str:
        """File and line; the line is counted only now that somebody wants to know it."""
        source = self._sources[piece.source]
        if is_scheme(source) or isinstance(piece.content, str):
            return f"{source}, row {piece.offset}"
        line, left = 1, piece.offset
        for block in _blocks(Path(source)):
            line += block[:left].count(b"\n")
            left -= len(block)
            if left <= 0:
                break
        return f"{source}, line {line}"


def sections(text: str) -> Iterator[str]:
    """A text in parts of at most `SECTION_CHARACTERS`, cut at the last line end, else at white space, else anywhere."""
    start = 0
    while len(text) - start > SECTION_CHARACTERS:
        end = start + SECTION_CHARACTERS
        cut = max(text.rfind("\n", start + 1, end), 0) or max(text.rfind(" ", start + 1, end), 0) or end
        yield text[start:cut]
        start = cut
    yield text[start:]
