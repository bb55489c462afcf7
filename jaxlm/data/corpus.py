"""Raw text as documents, streamed: a corpus may be larger than memory, and one document larger than a corpus.

Documents come in *pieces* of at most a megabyte, cut at line ends, so that memory stays bounded. What is done about
dirt, and what is counted:

- bytes that are no UTF-8 become U+FFFD, which a BERT tokenizer drops (or stop with file and line: `data.bad_rows`);
- a byte-order mark is taken off; CR LF counts as LF; control characters are left to the tokenizer, which drops them;
- an empty document, a line that is no JSON object, a row without text is left out.
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
from jaxlm.data import files
from jaxlm.data.columns import TEXT_NAMES
from jaxlm.data.header import looks_like_header
from jaxlm.data.schemes import is_scheme, scheme_rows
from jaxlm.errors import UserError

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


def pieces(source: str, number: int, settings: DataSettings) -> Iterator[Piece]:
    """The documents of a source in order, long ones in several pieces.

    Raises:
      UserError: the source cannot be read.
    """
    if is_scheme(source):
        rows: Iterator[files.Row] = scheme_rows(source, "train")
    elif (kind := files.data_format(Path(source))) == ".txt":
        yield from _txt(Path(source), number, settings.documents)
        return
    elif kind == ".jsonl":
        for document, (offset, line) in enumerate(_lines(Path(source))):
            yield Piece(line, number, document, 0, offset)
        return
    else:
        rows = files.read_rows(Path(source))
    head = list(itertools.islice(rows, _HEAD))
    column, header = _column(source, [row for row in head if isinstance(row.values, list) and row.values], settings)
    for row in itertools.chain(head, rows):
        if row.values != header:
            yield Piece(_row_text(source, row, column, settings), number, row.line - 1, 0, row.line)
        header = None if row.values == header else header


def _column(source: str, rows: list[files.Row], settings: DataSettings) -> tuple[int, Any]:
    """Where the text is in rows without keys, and the first of them where it has the names of columns."""
    if not rows:
        return 0, None
    asked, names = settings.text, [str(value).strip() for value in rows[0].values]
    known = asked in names or any(name.lower() in TEXT_NAMES for name in names)
    if settings.header == "yes" or (settings.header == "auto" and (known or looks_like_header(source, rows, settings))):
        lowered = [name.lower() for name in names]
        usual = [lowered.index(name) for name in TEXT_NAMES if name in lowered]
        place = names.index(asked) if asked in names else usual[0] if usual and asked is None else None
        header = rows[0].values
    else:
        place, header = None, None
    if asked is not None and asked.isdigit() and place is None and int(asked) < len(names):
        place = int(asked)
    if asked is None and place is None and len(names) == 1:
        place = 0
    if place is None:
        offer = ", ".join(names) if header else f"{len(names)} without names"
        raise UserError(
            f"{source}: which column is the text? Columns: {offer} - --data.text takes a name or a position"
        )
    return place, header


def _row_text(source: str, row: files.Row, column: int, settings: DataSettings) -> str:
    if row.problem:
        if settings.bad_rows == "error":
            raise UserError(f"{source}, line {row.line}: {row.problem}; or leave such rows out: --data.bad_rows skip")
        return ""
    if isinstance(row.values, dict):
        return _text_of(row.values, settings.text, f"{source}, row {row.line}")
    return str(row.values[column]) if column < len(row.values) else ""


def _text_in(values: dict, column: str | None) -> Any:
    """The cell of the text's column; None where there is none."""
    return values.get(next((name for name in TEXT_NAMES if name in values), None) if column is None else column)


def _text_of(values: dict, column: str | None, place: str) -> str:
    if column is None:
        column = next((name for name in TEXT_NAMES if name in values), None)
    if column is None or column not in values:
        raise UserError(f"{place}: which of {', '.join(map(str, values))} is the text? Choose with --data.text NAME")
    return values[column] if isinstance(values[column], str) else ""


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
                found = _text_in(values, self._settings.text)
                if found is None and (strict or piece.document == 0):
                    text = _text_of(values, self._settings.text, self._place(piece))  # asks which column it is
                elif found is not None and not isinstance(found, str) and strict:
                    raise UserError(f"{self._place(piece)}: text that is no string ({str(found)[:60]!r})")
                elif not isinstance(found, str):
                    self.dropped["no text"] += 1
                    return None
                else:
                    text = found
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
