"""Documents and queries: texts with ids, read from files as a stream."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import files, readers
from jaxlm.data.columns import joined, keys_of
from jaxlm.data.corpus import expand
from jaxlm.data.files import Row
from jaxlm.data.header import looks_like_header
from jaxlm.data.labels import label_name
from jaxlm.data.schemes import is_scheme
from jaxlm.data.sources import Problems, counted
from jaxlm.errors import UserError

log = logging.getLogger("jaxlm")

_HEAD = 1000


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
    remedy: tuple[str, str]  # how a column of ids, or of the text, is told where none has a usual name
    unnamed: str  # how columns are told where the file has no names for them
    chosen: tuple[str | None, str | None, str | None] = (None, None, None)  # id, title, text: a name, or a position
    judged: bool = False  # by ids of other files: numbers of lines are no ids where columns have names


DOCUMENTS = Columns(
    "--documents",
    ("id", "_id", "docid", "doc_id", "doc-id", "document_id", "document-id", "docno", "pid", "passage_id", "passage-id",
     "corpus-id", "corpus_id", "corpusid", "cord_uid", "pmid"),
    ("title", "headline", "question"),
    ("text", "passage", "document", "contents", "content", "body", "body_text", "abstract", "description", "sentence",
     "answer"),
    ("--id_column chooses one, by name or position", "--data.text chooses one, by name or position"),
    "tell them by position: --title_column 0 --data.text 1 (and --id_column; without it lines' numbers are the ids)",
)  # fmt: skip
QUERIES = Columns(
    "--queries",
    ("id", "_id", "qid", "query_id", "query-id", "queryid", "question_id", "question-id", "topic_id",
     "topic-id"),
    (),
    ("query", "query_text", "text", "question"),
    ("name it so in the file", "name it so in the file, and the ids id: a first line, or keys"),
    "put their names into a first line, query among them, and pass --data.header yes",
)  # fmt: skip
JUDGED_QUERIES = dataclasses.replace(QUERIES, id=(*QUERIES.id, "number", "topic"), judged=True)  # TREC's topics


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
    text, which is said. Without a column of ids, an entry's id is its line, after the file's name where there are
    several files. A text may be a list of sentences. A blank line of a txt file is no entry.

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
            is_text = files.data_format(path) == ".txt"
            rows = (r for r in readers.read_rows(path) if r.problem or not is_text or any(v.strip() for v in r.values))
            head, readable = _head(rows)
            places, is_header = self._places(path, readable) if readable else (_Places(None, None, 0, 0), False)
            for row in itertools.chain(head, rows):
                if row.problem:
                    problems.report(row, row.problem)
                    continue
                if is_header and row is readable[0]:
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
            raise UserError(
                f"{names}: nothing to read" + (f" (left out: {counted(self.skipped)})" if self.skipped else "")
            )

    def _entry(self, path: Path, row: Row, places: "_Places") -> Entry:
        """`ValueError(problem, detail)` where the row holds none."""
        if isinstance(row.values, dict) and places.title not in row.values:
            places = places._replace(title=None)
        wanted = (places.id, places.title, places.text)
        try:
            number, title, text = (None if place is None else row.values[place] for place in wanted)
        except KeyError as error:
            raise ValueError("a column is missing", f" ({error.args[0]})") from None
        title, text = joined(title), joined(text)
        for cell in (title, text):
            if cell is not None and not isinstance(cell, str):
                raise ValueError("text that is no string", f" ({cell!r})")
        title, text = (title or "").strip(), (text or "").strip()
        if not text and not title:
            raise ValueError("empty text")
        if places.id is None:
            named_alike = sum(other.name == path.name for other in self._paths) > 1
            name = str(path) if named_alike else path.name
            return Entry(f"{name}:{row.line}" if len(self._paths) > 1 else str(row.line), title, text)
        if isinstance(number, (list, dict)) or number is None or not str(number).strip():
            raise ValueError("no id", f" ({number!r})")
        return Entry(label_name(number), title, text)

    def _places(self, path: Path, rows: Sequence[Row]) -> tuple["_Places", bool]:
        """Where a file's columns are, and whether the first of `rows`, those at its head, is a header."""
        columns, asked, first = self._columns, self._columns.chosen, rows[0]
        names: dict[str, Any] = {}
        is_header = False
        if isinstance(first.values, dict):
            names = {str(name): name for name in keys_of(row for row in rows if isinstance(row.values, dict))}
        elif files.data_format(path) != ".txt":
            cells = [str(value).strip() for value in first.values]
            known = {*columns.id, *columns.title, *columns.text, *(name.lower() for name in asked if name)}
            lower = [cell.lower() for cell in cells]
            auto = set(lower) <= known or len(set(lower) & known) > 1 or lower[0] in columns.id
            auto = auto or looks_like_header(str(path), rows, self._settings)
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
            if width > 1:
                self._tell_guess(path, rows, width)
        if found[2] is None:
            offer = ", ".join(names) if names else f"0 to {width - 1}"
            raise UserError(
                f"{path}: which column is the text ({offer})? Usual names are {', '.join(columns.text)}; "
                f"{columns.remedy[1]}"
            )
        if columns.judged and names and found[0] is None:
            raise UserError(
                f"{path}: --qrels judges by ids: which column are they ({', '.join(names)})? Usual names are "
                f"{', '.join(columns.id)}; {columns.remedy[0]}"
            )
        if unused := [name for name, place in names.items() if place not in found]:
            used = {what: name for what, column in zip(("id", "title", "text"), found, strict=True)
                    for name, place in names.items() if place == column}  # fmt: skip
            listing = ", ".join(f"{what} {name}" for what, name in used.items())
            log.info("%s: columns: %s; not used: %s", path, listing, ", ".join(unused))
        return _Places(found[0], found[1], found[2], width), is_header

    def _tell_guess(self, path: Path, rows: Sequence[Row], width: int) -> None:
        """Says which columns serve what where neither names nor a person tell.

        Raises:
          UserError: what would be ids are words, as titles and questions are.
        """
        ids = [str(row.values[0]) for row in rows if isinstance(row.values, list) and row.values]
        words = [name for name in ids if len(name.split()) > 1]
        if 2 * len(words) > len(ids):
            told = f"the columns are id, {'title, ' if width == 3 else ''}text where nothing names them"
            raise UserError(
                f"{path}: {told}, and most ids would be several words, such as {words[0][:60]!r}; "
                f"{self._columns.unnamed}"
            )
        titles = ", titles column 1" if width == 3 else ""
        log.info("%s: no column names: ids are column 0%s, texts column %d", path, titles, width - 1)


def _head(rows: Iterator[Row]) -> tuple[list[Row], list[Row]]:
    """Rows from the first on, and those among them that can be read: enough to know names of columns by."""
    head: list[Row] = []
    readable: list[Row] = []
    while len(readable) < _HEAD and (row := next(rows, None)) is not None:
        head.append(row)
        if not row.problem:
            readable.append(row)
    return head, readable


class _Places(NamedTuple):
    """Positions, or keys, of the columns; None for one that there is not."""

    id: Any
    title: Any
    text: Any
    width: int
