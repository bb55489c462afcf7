"""Documents and queries: texts with ids, read from files as a stream."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.corpus import expand
from jaxlm.data.files import Row
from jaxlm.data.schemes import is_scheme
from jaxlm.data.sources import Problems
from jaxlm.errors import UserError


class Entry(NamedTuple):
    """A document or a query."""

    id: str
    title: str  # "" where there is none
    text: str


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of documents or queries: names chosen by a person, or else the usual ones, in lower case."""

    flag: str  # which names the file
    id: Sequence[str]
    title: Sequence[str]
    text: Sequence[str]
    chosen: tuple[str | None, str | None, str | None] = (None, None, None)  # id, title, text: a name, or a position


DOCUMENTS = Columns(
    "--documents",
    ("id", "_id", "docid", "doc_id", "document_id", "pid", "passage_id", "corpus-id"),
    ("title",),
    ("text", "passage", "document", "contents", "content", "body", "sentence", "answer"),
)
QUERIES = Columns(
    "--queries", ("id", "_id", "qid", "query_id", "query-id", "queryid"), (), ("query", "text", "question")
)


def paths_of(specs: Sequence[str], columns: Columns) -> list[Path]:
    """The files that paths, globs and lists of them (parted by commas) name.

    Raises:
      UserError: nothing is there, or a name says no format.
    """
    found = [source for spec in specs for source in expand(spec, columns.flag)]
    if schemes := [source for source in found if is_scheme(source)]:
        raise UserError(f"{columns.flag} {schemes[0]}: a file is meant")
    if again := [source for source in found if found.count(source) > 1]:
        raise UserError(f"{columns.flag} names {again[0]} twice")
    return [Path(source) for source in found]


class Reader:
    """Reads the entries of files in order; `skipped` then counts what was left out, by reason.

    Columns are found by name; those of csv and tsv without a header line are the text, or id and text, or id, title and
    text. Without a column of ids, an entry's id is its line, after the file's name where there are several files. A
    blank line of a txt file is no entry.

    Raises (while it reads):
      UserError: a row that cannot be read, an empty text or an id for the second time, unless `settings.bad_rows` is
        "skip"; a column that cannot be found; or no entry at all.
    """

    def __init__(self, paths: Sequence[Path], columns: Columns, settings: DataSettings):
        self._paths, self._columns, self._settings = paths, columns, settings
        self.skipped: dict[str, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        seen: set[str] = set()
        self.skipped.clear()
        for path in self._paths:
            problems = Problems(str(path), self._settings.bad_rows)
            problems.counts = self.skipped
            places: _Places | None = None
            blank_is_nothing = files.data_format(path) == ".txt"
            for row in files.read_rows(path):
                if row.problem:
                    problems.report(row, row.problem)
                    continue
                if blank_is_nothing and not any(value.strip() for value in row.values):
                    continue
                if places is None:
                    places, is_header = self._places(path, row)
                    if is_header:
                        continue
                if isinstance(row.values, list) and len(row.values) != places.width:
                    problems.report(row, "wrong number of columns", f" ({len(row.values)} instead of {places.width})")
                    continue
                try:
                    entry = self._entry(path, row, places)
                except ValueError as error:
                    problems.report(row, *error.args)
                    continue
                if entry.id in seen:
                    problems.report(row, "an id for the second time", f" ({entry.id})")
                    continue
                seen.add(entry.id)
                yield entry
        if not seen:
            names = ", ".join(map(str, self._paths))
            raise UserError(f"{names}: nothing to read" + (f" ({self.skipped})" if self.skipped else ""))

    def _entry(self, path: Path, row: Row, places: "_Places") -> Entry:
        """`ValueError(problem, detail)` where the row holds none."""
        cells = []
        for place in (places.id, places.title, places.text):
            try:
                cells.append(None if place is None else row.values[place])
            except KeyError:
                raise ValueError("a column is missing", f" ({place})") from None
        number, title, text = cells
        for cell in (title, text):
            if cell is not None and not isinstance(cell, str):
                raise ValueError("text that is no string", f" ({cell!r})")
        title, text = (title or "").strip(), (text or "").strip()
        if not text and not title:
            raise ValueError("empty text")
        if places.id is None:
            return Entry(f"{path.name}:{row.line}" if len(self._paths) > 1 else str(row.line), title, text)
        if isinstance(number, (list, dict)) or number is None or not str(number).strip():
            raise ValueError("no id", f" ({number!r})")
        return Entry(str(number).strip(), title, text)

    def _places(self, path: Path, first: Row) -> tuple["_Places", bool]:
        """Where a file's columns are, and whether its first row is a header."""
        columns, asked = self._columns, self._columns.chosen
        names: dict[str, Any] = {}
        is_header = False
        if isinstance(first.values, dict):
            names = {str(name): name for name in first.values}
        elif files.data_format(path) != ".txt":
            cells = [str(value).strip() for value in first.values]
            known = {*columns.id, *columns.title, *columns.text, *(name.lower() for name in asked if name)}
            auto = {cell.lower() for cell in cells} <= known or len({cell.lower() for cell in cells} & known) > 1
            is_header = self._settings.header == "yes" or (self._settings.header == "auto" and auto)
            names = {cell: place for place, cell in enumerate(cells)} if is_header else {}
        width = len(first.values)
        lowered = {name.lower(): place for name, place in names.items()}
        found: list[Any] = []
        for setting, usual in zip(asked, (columns.id, columns.title, columns.text), strict=True):
            if setting is None:
                found.append(next((lowered[name] for name in usual if name in lowered), None))
            elif setting in names:
                found.append(names[setting])
            elif setting.isdigit() and int(setting) < width:
                found.append(list(first.values)[int(setting)] if isinstance(first.values, dict) else int(setting))
            else:
                raise UserError(f"{path}: there is no column {setting}; there are {', '.join(names) or width}")
        if not names and asked == (None, None, None) and width <= (3 if columns.title else 2):
            found = [None, None, 0] if width == 1 else [0, 1 if width == 3 else None, width - 1]
        if found[2] is None:
            offer = ", ".join(names) if names else f"0 to {width - 1}"
            raise UserError(
                f"{path}: which column is the text ({offer})? Usual names are {', '.join(columns.text)}"
                + ("" if columns is QUERIES else "; --data.text chooses one, by name or position")
            )
        return _Places(found[0], found[1], found[2], width), is_header


class _Places(NamedTuple):
    """Positions, or keys, of the columns; None for one that there is not."""

    id: Any
    title: Any
    text: Any
    width: int
