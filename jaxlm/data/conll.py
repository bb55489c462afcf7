"""Tagged words in columns, as the shared tasks of CoNLL wrote them, and their successor CoNLL-U."""

import itertools
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.files import Row
from jaxlm.data.tags import is_tag, usual_form
from jaxlm.data.words import Sentence
from jaxlm.errors import NoSuchColumn, UserError

log = logging.getLogger("jaxlm")

_DOCUMENT_MARKS = ("-DOCSTART-", "#begin document", "#end document", "###MEDLINE:")  # CoNLL-2003, -2012, JNLPBA
_HEAD = 500  # lines by which a file's columns are told apart
_NAMES_OF_WORDS = {"token", "tokens", "word", "words", "form"}


class _Layout(NamedTuple):
    """What the columns of a CoNLL file hold."""

    words: int
    tags: int
    width: int
    has_tabs: bool
    is_marked: bool  # whether the column of tags holds those of entities, in the usual form
    is_universal: bool  # CoNLL-U: ten columns, of which the first numbers the words
    header: list[str] | None  # names of the columns, where the first row holds them


def read_columns(path: Path, settings: DataSettings, *, tags: bool) -> Iterator[Sentence]:
    """The sentences of a CoNLL file: a word a line, columns parted by tabs or spaces, sentences by blank lines."""
    layout = _layout(path, settings, tags=tags)
    for blank, group in itertools.groupby(files.lines(path), lambda item: item[1] is not None and _is_break(item[1])):
        if blank:
            continue
        sentence, problem = list(group), None
        stray: tuple[Row, str] | None = None
        cells: list[list[str]] = []
        for number, line in sentence:
            values = [] if line is None else _cells(line)
            if line and (values == layout.header or _is_comment(line, values, layout, ahead=not cells)):
                continue
            if line is None:
                problem = Sentence(Row(number, []), problem="not UTF-8")
            elif not all(values):
                problem = Sentence(Row(number, []), problem="an empty column")
            elif len(values) != layout.width:
                detail = f" ({len(values)} instead of {layout.width})"
                problem = Sentence(Row(number, []), problem="wrong number of columns", detail=detail)
            elif layout.is_universal and not values[0].isdecimal():
                continue  # a range, of which the words follow; or a word that is not there
            elif tags and stray is None and not is_tag(values[layout.tags]):
                stray = Row(number, []), f" ({values[layout.tags]!r})"
            if problem is not None:
                break
            cells.append(values)
        if not cells and problem is None:  # comments alone
            continue
        first = Row(sentence[0][0], [])
        yield problem or Sentence(
            first, [values[layout.words] for values in cells],
            [values[layout.tags] for values in cells] if tags else None, stray=stray,
        )  # fmt: skip


def _layout(path: Path, settings: DataSettings, *, tags: bool) -> _Layout:
    """What the columns hold: as asked, or as the lines at the head of the file show.

    Raises:
      UserError: the columns that are asked for are not there, or it cannot be told which hold the tags.
    """
    header, blocks = _head(path)
    rows = [row for block in blocks for row in block]
    width = len(rows[0]) if rows else 1
    if rows and path.name.lower().split(".")[-1] == "csv" and "," in "".join(rows[0]):
        raise UserError(
            f"{path}: tagged words are read from columns parted by tabs or spaces, or from jsonl or parquet"
        )
    if tags and rows and width < 2:
        raise UserError(f"{path}: its first row has one column; words and tags are meant, parted by space or tab")
    words, place = (_position(path, name, getattr(settings, name)) for name in ("words", "tags"))
    tagged = tag_columns(path)
    is_numbered = width > 2 and all(map(_counts, blocks))
    is_universal = is_numbered and width == 10
    if words is None:
        words = 1 if is_numbered else 0
    if place is None and tags and is_universal:
        place = 3  # the universal part of speech
    elif place is None and tags and tagged == [words]:
        raise UserError(f"{path}: its first column holds the tags, as it seems: --data.tags 0 --data.words 1")
    # Else the last, as in CoNLL-2003, also where no line at the head is part of an entity.
    elif place is None and tags and (is_numbered or not (width - 1 in tagged or all(row[-1] == "O" for row in rows))):
        if len(tagged) > 1:
            found = ", ".join(f"{column} ({header[column]})" if header else str(column) for column in tagged)
            raise UserError(f"{path}: columns {found} hold tags, as it seems; which are meant? --data.tags NUMBER")
        place = tagged[0] if tagged else None
    place = -1 if place is None else place
    if tags and any(_BRACKETS.fullmatch(row[place]) for row in rows if -len(row) <= place < len(row)):
        raise UserError(
            f"{path}: column {place % width} marks spans by brackets, as OntoNotes does; tags such as O and B-PER, one "
            "a word, are meant"
        )
    for name, column in (("words", words), ("tags", place if tags else 0)):
        if rows and not -width <= column < width:
            raise NoSuchColumn(f"{path}: --data.{name} {column}: there are {width} columns")
    if settings.words is not None and words % width in tagged:
        raise NoSuchColumn(f"{path}: --data.words {words}: that column holds tags, as it seems")
    if tags and width > 2:
        log.info(
            "%s: words in column %d and tags in column %d, of %d from 0", path, words % width, place % width, width
        )
    has_tabs = any("\t" in line for _, line in itertools.islice(files.lines(path), _HEAD) if line)
    is_marked = bool(rows) and place % width in tagged and all(is_tag(row[place]) for row in rows)
    return _Layout(words, place, width, has_tabs, is_marked, is_universal, header)


_BRACKETS = re.compile(r"\([A-Z]\w*\*?\)?|\*\)|\(?\d+\)")  # (DATE*  *)  (GPE)  (12)


def _is_comment(line: str, cells: list[str], layout: _Layout, *, ahead: bool) -> bool:
    """Whether a line is a comment: the word # has its columns, and a tag among them. Within a sentence, not ahead of
    it, only the lack of tabs where there are some makes a comment (HIPE-2022); other lines may be broken rows."""
    if line[:2] not in ("# ", "#\t"):
        return False
    if layout.has_tabs and "\t" not in line:
        return True
    return ahead and (len(cells) != layout.width or (layout.is_marked and not is_tag(cells[layout.tags])))


def _counts(block: list[list[str]]) -> bool:
    """Whether the first column of a sentence numbers its words from 0 or, as CoNLL-U does, from 1: there with 1-2 for a
    range ahead of its words, and 2.1 for a word that is not there."""
    if not all(re.fullmatch(r"\d+([-.]\d+)?", row[0]) for row in block):
        return False
    numbers = [int(row[0]) for row in block if row[0].isdecimal()]
    return bool(numbers) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _head(path: Path) -> tuple[list[str] | None, list[list[list[str]]]]:
    """The names of a CoNLL file's columns, where its first row holds them, and the cells of the lines at its head, by
    sentence, without comments."""
    blocks: list[list[list[str]]] = [[]]
    for _, line in itertools.islice(files.lines(path), _HEAD):
        if line is not None and _is_break(line):
            blocks.append([])
        elif line and line[:2] not in ("# ", "#\t"):
            blocks[-1].append(_cells(line))
    blocks = [block for block in blocks if block]
    rows = [row for block in blocks for row in block]
    if rows and _is_header(rows[0], rows[1:]):
        parted = [[row for row in block if row != rows[0]] for block in blocks]
        return rows[0], [block for block in parted if block]
    return None, blocks


def _is_header(first: list[str], rest: list[list[str]]) -> bool:
    """A word may be "token", too; then it or its tag occurs again."""
    others = [row for row in rest if row != first]  # files that were put together have several
    if len(first) < 2 or not others or _NAMES_OF_WORDS.isdisjoint(cell.lower() for cell in first):
        return False
    again = any(cell == name for row in others for cell, name in zip(row, first, strict=False))
    return not again and not any(map(is_tag, first))


def tag_columns(path: Path, known: Collection[str] = ()) -> list[int]:
    """Columns that hold tags such as O and B-PER, or `known` ones, and nothing else, at a CoNLL file's head."""
    rows = [row for block in _head(path)[1] for row in block]
    if not rows or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return []
    columns = enumerate(zip(*rows, strict=True))
    return [
        place
        for place, cells in columns
        if (all(map(is_tag, cells)) and any(cell != "O" for cell in cells))
        or usual_form(cells, known)
        or (known and set(cells) <= set(known))
    ]


def _is_break(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith(_DOCUMENT_MARKS)


def _cells(line: str) -> list[str]:
    """By tabs where there are any, so that a word may hold a space; other white space may be part of a word, too."""
    if "\t" in line.strip(" "):
        return [cell.strip(" ") for cell in line.split("\t")]
    return re.split(" +", line.strip(" "))


def _position(path: Path, name: str, asked: str | None) -> int | None:
    try:
        return None if asked is None else int(asked)
    except ValueError:
        raise NoSuchColumn(
            f"{path}: --data.{name} {asked}: a CoNLL file's columns have numbers: 0, 1, ..., or -1 for the last"
        ) from None
