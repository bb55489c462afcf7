"""Where examples come from: a setting such as `train.tsv.xz`, `tfds:glue/sst2` or `docs:topics` becomes a `Table`."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from jaxlm.config import DataSettings
from jaxlm.data import files, readers
from jaxlm.data.columns import (
    NOTHING,
    SETTINGS,
    Known,
    flag,
    joined,
    value_of,
)
from jaxlm.data.files import Row
from jaxlm.data.header import has_columns, is_header
from jaxlm.data.labelled_texts import class_rows, fasttext_rows, is_fasttext
from jaxlm.data.labels import LabelKind, read_label, separator, withheld
from jaxlm.data.roles import roles_of
from jaxlm.data.schemes import SCHEMES, SPLITS, ClassNames, is_scheme
from jaxlm.errors import UserError

log = logging.getLogger("jaxlm")

_SAMPLE = 1000  # rows by which columns are told apart


@dataclasses.dataclass(frozen=True)
class Table:
    """Examples in memory: texts, perhaps second texts and labels, and where each came from."""

    source: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[Any] | None  # str, float or tuple[str, ...], by `LabelKind`
    places: list[str]  # "line 17", by example
    label_names: list[str] | None = None  # where the source itself states the classes in order
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)  # reason -> rows left out
    negatives: list[str] | None = None  # third texts, which do not fit the first ones
    columns: dict[str, str] = dataclasses.field(default_factory=dict)  # that served, as in `Known`

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def known(self) -> Known:
        """What a training table tells of files that are read after it."""
        return Known(self.known_labels.union(self.label_names or ()), self.columns)

    @property
    def known_labels(self) -> frozenset[str]:
        """The names that occur as labels."""
        return frozenset(
            str(name) for label in self.labels or [] for name in (label if isinstance(label, tuple) else (label,))
        )

    def unlabelled(self) -> "Table":
        """The same rows without their answers."""
        return dataclasses.replace(self, labels=None)

    def choose(self, rows: Sequence[int] | np.ndarray) -> "Table":
        """The given rows, in the given order."""
        by_row: dict[str, Any] = {
            item.name: [values[row] for row in rows]
            for item in dataclasses.fields(self)
            if item.name != "label_names" and isinstance(values := getattr(self, item.name), list)
        }
        return dataclasses.replace(self, **by_row)


def read_table(
    spec: str,
    split: str,
    settings: DataSettings,
    *,
    label_kind: LabelKind | None,
    known: Known = NOTHING,
    running_text: bool = False,
    by_split: bool | None = None,
) -> Table:
    """Reads the data that a setting names.

    Args:
      spec: a path (of a directory, if it has a folder for each class), `tfds:NAME[:SPLIT]`, `hf:NAME[:SPLIT]` or
        `docs:topics`.
      split: "train", "dev" or "test": which part is meant where `spec` does not say.
      settings: columns, header and what to do with bad rows.
      label_kind: what the label column holds; None where none is needed.
      running_text: a txt file is a corpus of documents, parted as `settings.documents` says.
      by_split: take the rows of `split` where a column says which these are; unset: where labels are wanted.
      known: of the training data or the model: labels, which tell the columns of a file without names apart, and
        columns, which serve again where `settings` choose none.

    Raises:
      UserError: no such data, no such column, or (unless `settings.bad_rows` is "skip") a row that cannot be read.
    """
    scheme, _, name = spec.partition(":")
    stated: ClassNames = {}
    if is_scheme(spec):
        stated, rows = SCHEMES[scheme](name, split)
    elif name and "/" not in scheme and not Path(spec).exists():
        schemes = ", ".join(f"{scheme}:" for scheme in SCHEMES)
        raise UserError(f"{spec}: unknown kind of data {scheme!r}; a path or one of {schemes} is meant")
    elif Path(spec).is_dir():
        rows = class_rows(Path(spec), split)
    elif not running_text and is_fasttext(Path(spec)):
        rows = fasttext_rows(Path(spec))
    else:
        columns = label_kind is not None or settings.text_pair is not None or settings.pairs
        columns = columns or (not running_text and has_columns(Path(spec), settings, known))
        if not running_text:
            files.refuse_json_in_txt(Path(spec))
        rows = readers.read_rows(Path(spec), SPLITS[split], columns=columns)
        if files.data_format(Path(spec)) == ".parquet":
            stated = readers.stated_names(Path(spec))
        if running_text and files.data_format(Path(spec)) == ".txt":
            rows = _documents(spec, list(rows), settings.documents)
    if by_split is None:
        by_split = label_kind is not None
    return _table(
        spec, rows, settings, label_kind=label_kind, known=known, stated=stated,
        split=split if by_split else None,
    )  # fmt: skip


def _documents(source: str, lines: Sequence[Row], parted_by: str) -> Iterator[Row]:
    """The documents in the lines of a txt file."""

    def is_blank(row: Row) -> bool:
        return not row.problem and not "".join(row.values).strip()

    filled = [number for number, row in enumerate(lines) if not is_blank(row)]
    if parted_by == "blank_lines" and filled and filled[-1] - filled[0] == len(filled) - 1:
        log.info("%s: no blank line parts documents: each line is one (--data.documents file: all are one)", source)
        parted_by = "line"
    if parted_by == "line":
        yield from (lines[number] for number in filled)
        return
    for blank, group in itertools.groupby(lines, lambda row: parted_by == "blank_lines" and is_blank(row)):
        if not blank:
            document = list(group)
            yield from (row for row in document if row.problem)
            text = "\n".join("".join(row.values) for row in document if not row.problem)
            if text.strip():
                yield Row(document[0].line, [text])


def table_of_texts(
    source: str, texts: Sequence[str | bytes], settings: DataSettings, pairs: Sequence[str] | None = None
) -> Table:
    """A table of texts that come from no file; bytes are UTF-8 lines, of which an empty last one does not count.

    Args:
      pairs: the second text of each, where texts come in pairs.

    Raises:
      UserError: there are none, or one is empty or not UTF-8 (unless `settings.bad_rows` is "skip").
    """

    def rows() -> Iterator[Row]:
        for number, text in enumerate(texts, 1):
            second = [] if pairs is None else [pairs[number - 1]]
            try:
                yield Row(number, [text.decode("utf-8").rstrip("\r") if isinstance(text, bytes) else text, *second])
            except UnicodeDecodeError:
                yield Row(number, [], "not UTF-8")

    if texts and texts[-1] == b"":
        texts = texts[:-1]
    second_column = None if pairs is None else "1"
    plain = dataclasses.replace(settings, text="0", text_pair=second_column, label=None, header="no")
    return _table(source, rows(), plain, label_kind=None)


class Placed(Protocol):
    """What lies somewhere in a source."""

    @property
    def place(self) -> str: ...


class Problems:
    """Stops at the first bad row, or counts them, as the setting says."""

    def __init__(self, source: str, policy: str):
        self.source, self.policy = source, policy
        self.counts: dict[str, int] = {}

    def report(self, row: Placed, kind: str, detail: str = "") -> None:
        self.report_at(row.place, kind, detail)

    def report_at(self, place: str, kind: str, detail: str = "") -> None:
        if self.policy == "error":
            detail += files.OTHER_ENCODING if kind.startswith("not UTF-8") else ""
            raise UserError(
                f"{self.source}, {place}: {kind}{detail}; correct it, or leave such rows out: --data.bad_rows skip"
            )
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def tell(self, what: str) -> None:
        """Says how many rows, or whatever they are called, were left out."""
        if self.counts:
            log.warning("%s: %s left out: %s", self.source, what, counted(self.counts))


def counted(counts: Mapping[str, int]) -> str:
    """What was left out, as in "2 empty text, 1 no label"."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def rows_of_a_table(
    source: str, rows: Iterable[Row], settings: DataSettings, problems: Problems, known: Known = NOTHING
) -> list[Row]:
    """The rows that can be read. Those of a file without column names have as many columns as its first one; where all
    columns are chosen by position, more are no harm.

    Raises:
      UserError: there is none, or the first one that cannot be read, where `settings.bad_rows` says so.
    """
    needed: int | None = None  # columns, where all are chosen by position
    good: list[Row] = []
    width, wider = None, 0
    for row in rows:
        columns = len(row.values) if isinstance(row.values, list) else None
        if width is None and columns is not None and not row.problem:
            needed = _needed(source, row, settings, known)
        if row.problem:
            problems.report(row, row.problem)
        elif good and type(row.values) is not type(good[0].values):
            problems.report(row, "an object among lists" if columns is None else "a list among objects")
        elif columns is None:
            good.append(row)
        elif columns == (width := width or columns) or (needed is not None and columns >= needed):
            wider += columns != width
            good.append(row)
        else:
            harmless = ", which is no harm where --data.text and all others are positions from 0"
            more = harmless if columns > width else ""
            problems.report(row, "wrong number of columns", f" ({columns} instead of {width}{more})")
    if not good:
        raise UserError(f"{source}: no rows" if not problems.counts else f"{source}: no row could be read")
    if wider:
        log.info("%s: %d rows have other than %d columns; those chosen by position are read", source, wider, width)
    return good


def _needed(source: str, first: Row, settings: DataSettings, known: Known) -> int | None:
    """How many columns a row needs at least, where all that matter are chosen by position, now or for the training."""
    positions = known.columns if len(first.values) > 2 and not is_header(source, [first], settings, known) else {}
    chosen = {name: getattr(settings, name) or positions.get(name) for name in SETTINGS}
    asked = [name for name in chosen.values() if name]
    return max(map(int, asked)) + 1 if chosen["text"] and all(name.isdigit() for name in asked) else None


def _table(
    source: str,
    rows: Iterator[Row],
    settings: DataSettings,
    *,
    label_kind: LabelKind | None,
    known: Known = NOTHING,
    stated: Mapping[str, list[str]] = MappingProxyType({}),
    split: str | None = None,
) -> Table:
    labelled = label_kind is not None
    problems = Problems(source, settings.bad_rows)
    good = rows_of_a_table(source, rows, settings, problems, known)
    columns, roles, good = roles_of(source, good, settings, problems, label_kind=label_kind, known=known)
    text, pair, label, flags = roles
    served = columns.served(settings, text=text, text_pair=pair, label=label)
    columns.say({"text": text, "second text": pair, "label": label, **{f"label {name}": flags[name] for name in flags}})
    good = columns.of_split(good, split, chosen=(text, pair, label))
    table = Table(
        source, [], [] if pair is not None else None, [] if labelled else None, [],
        list(flags) or stated.get(str(label)), problems.counts, columns=served,
    )  # fmt: skip
    read = None
    if label_kind is not None:
        parted_by = separator(value_of(row, label) for row in good) if label_kind == "set" and not flags else ","
        read = functools.partial(read_label, kind=label_kind, parted_by=parted_by, known=known.labels)
    _fill(table, good, text, pair, flags or label, read, problems)
    columns.refuse_ids(settings, text=table.texts, text_pair=table.pairs)
    if label_kind == "class" and (name := withheld(table.known_labels)) is not None:
        labels = table.labels or []
        for place in (place for label, place in zip(labels, table.places, strict=True) if label == name):
            problems.report_at(place, "no label", f" ({name}, beside classes that are numbered from 0)")
        table = table.choose([row for row, label in enumerate(labels) if label != name])
    if label_kind == "number" and set(table.labels or ()) == {-1.0} and len(table) > 4:
        raise UserError(f"{source}: every label is -1, as where the answers are withheld; predict needs none")
    if not len(table):
        raise UserError(f"{source}: no usable row ({problems.counts})")
    problems.tell("rows")
    return table


def _fill(
    table: Table,
    rows: Iterable[Row],
    text: Any,
    pair: Any,
    label: Any,
    read: Callable[[Any], Any] | None,
    problems: Problems,
) -> None:
    for row in rows:
        try:
            cells = [None if column is None else _cell(row, column) for column in (text, pair, label)]
            cells[:2] = map(joined, cells[:2])
        except KeyError as error:
            problems.report(row, "a column is missing", f" ({error.args[0]})")
            continue
        except IndexError:
            problems.report(row, "wrong number of columns", f" ({len(row.values)})")
            continue
        strange = [cell for cell in cells[:2] if cell is not None and not isinstance(cell, str)]
        if strange:
            problems.report(row, "text that is no string", f" ({strange[0]!r})")
            continue
        strings = ["" if cell is None else str(cell).strip() for cell in cells[:2]]
        if not strings[0] or (pair is not None and not strings[1]):
            problems.report(row, "empty text", f" (the second, of column {pair})" if strings[0] else "")
            continue
        if table.labels is not None and read is not None:
            try:
                table.labels.append(read(cells[2]))
            except ValueError as error:
                problems.report(row, *error.args)
                continue
        table.texts.append(strings[0])
        table.places.append(row.place)
        if table.pairs is not None:
            table.pairs.append(strings[1])


def _cell(row: Row, column: Any) -> Any:
    """A row's value; of several columns, by name, an object of theirs."""
    if isinstance(column, dict):
        return {name: flag(row.values[of]) for name, of in column.items()}
    return row.values[column]
