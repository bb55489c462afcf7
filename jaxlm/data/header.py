"""Whether the lines of a file without known column names are rows, and whether the first is one of names."""

import itertools
import logging
import operator
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.columns import ID_NAMES, LABEL_NAMES, NAMES, NOTHING, PAIR_NAMES, TEXT_NAMES, Known
from jaxlm.data.files import Row
from jaxlm.errors import UserError

if TYPE_CHECKING:
    from jaxlm.data.sources import Problems

log = logging.getLogger("jaxlm")

_FEWEST_ROWS = 5
_SAMPLE = 1000
_LONGEST_NAME, _MOST_WORDS = 40, 4
_ONE_WORD = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


def has_columns(path: Path, settings: DataSettings, known: Known = NOTHING) -> bool:
    """Whether the lines of a txt file are rows: the text's column is chosen or known, all have as many tabs, or nearly
    all have some, below names; a single line is one where a part of it is a known label."""
    if not path.is_file() or files.data_format(path) != ".txt":
        return False
    head = [line.split("\t") for _, line in itertools.islice(files.lines(path), _SAMPLE) if line and line.strip()]
    if not head or len(head[0]) < 2:
        return False
    text = known.columns.get("text", "")
    first = [cell.strip() for cell in head[0]]
    if settings.text is not None or known.names.intersection(first):
        return True
    if text.isdigit() and 0 < int(text) < min(map(len, head)):
        return True
    if len(head) == 1:
        return any(cell in known.labels for cell in first)
    if NAMES.issuperset(map(str.lower, first)):
        return sum(len(cells) > 1 for cells in head) >= 0.9 * len(head)
    return all(len(cells) == len(first) for cells in head)


def is_header(source: str, rows: Sequence[Row], settings: DataSettings, known: Known = NOTHING) -> bool:
    """Whether the first of `rows` names columns: as `settings` say, by the columns that are chosen or known, or by
    names that data sets commonly give them."""
    if settings.header != "auto":
        return settings.header == "yes"
    cells = [str(value).strip() for value in rows[0].values]
    below = [[str(value).strip() for value in row.values] for row in rows[1 : _SAMPLE + 1]]
    all_known = (
        len(cells) > 1 and len(rows) > 1 and NAMES.issuperset(map(str.lower, cells)) and len(set(cells)) == len(cells)
    )
    if all_known:
        below = [row for row in below if row != cells]  # files that were put together, each with its header
    # A value that occurs again in its column is none of a header.
    again = {cell for place, cell in enumerate(cells) if any(cell == row[place] for row in below if place < len(row))}
    if all_known and not again:
        return True
    first = {cell.lower() for cell in cells} - {cell.lower() for cell in again}
    asked = {getattr(settings, name) for name in ("text", "text_pair", "label")}
    asked = {name.lower() for name in asked if name and not name.isdigit()}
    served = {name.lower() for name in known.names}
    if len(cells) == 1:  # any line of a txt file may be a text
        plain = {".csv", ".tsv"} & set(Path(source).suffixes) and first & served.union(TEXT_NAMES)
        return bool(asked & first or plain)
    if len(first & {*TEXT_NAMES, *PAIR_NAMES}) >= 2 or (first & set(TEXT_NAMES) and first & set(ID_NAMES)):
        return True
    return bool((asked | served) & first or first & set(LABEL_NAMES) or first & {"sentence", "text", "text_a", "index"})


def looks_like_header(source: str, rows: Sequence[Row], settings: DataSettings, known: Known = NOTHING) -> bool:
    """Whether the first of `rows` looks like names of columns, and no other; where it does, that is said.

    Its cells are short and differ, and in some column it is unlike all others: they are numbers and it is none; they
    are few values, nearly all of which occur again, as classes do, and it is none of these; or they are texts, and all
    of its cells are single words that do not occur again. After a file whose first line was a row only numbers tell.
    """
    if settings.header != "auto" or len(rows) < 2:
        return False
    doubted = known.columns.get("header") == "no"
    if len(rows[0].values) < 2 and not {".csv", ".tsv"} & set(Path(source).suffixes):
        return False
    cells, *others = [[str(value).strip() for value in row.values] for row in rows[: _SAMPLE + 1]]
    counted = not cells[0] and all(row[0] == str(number) for number, row in enumerate(others))  # pandas' index
    if len(rows) < 3 and not counted:
        return False
    names = [cell for cell in cells if cell]
    if len(set(names)) < len(names) or any(len(n) > _LONGEST_NAME or len(n.split()) > _MOST_WORDS for n in names):
        return False
    columns = list(zip(*(row[: len(cells)] for row in others), strict=False))
    if any(_is_label(name, column, known.labels) for name, column in zip(cells, columns, strict=False)):
        return False
    words = all(map(_ONE_WORD.fullmatch, names)) and not any(map(operator.contains, columns, cells))
    if len(cells) == 1:
        words = words and (cells[0].islower() or "_" in cells[0])
    level = logging.INFO
    several = len(cells) > 1  # of one column no more is certain than what stands over texts
    certain = several and any(_is_no_number(name, column) for name, column in zip(cells, columns, strict=False))
    if not certain and not counted:
        alike = several and any(_is_no_class(name, column) for name, column in zip(cells, columns, strict=False))
        over_texts = words and len(others) >= _FEWEST_ROWS and any(all(map(_is_text, column)) for column in columns)
        if doubted or not (alike or over_texts):
            return False
        level = logging.INFO if alike else logging.WARNING
    said = "%s: the first line is taken for names of columns: %s (a row? --data.header no)"
    log.log(level, said, source, ", ".join(cells))
    return True


def is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def without_header(source: str, rows: Sequence[Row], problems: "Problems") -> tuple[list[str], list[Row]]:
    """The names in the first of `rows`, and the others but those that are the same line again."""
    header, *others = rows
    names = [str(value).strip() for value in header.values]
    again = [row for row in others if len(names) > 1 and [str(value).strip() for value in row.values] == names]
    for row in again:
        problems.report(row, "the line of column names again")
    if len(again) == len(others):
        raise UserError(f"{source}: a header line and no rows")
    left_out = set(map(id, again))
    return names, [row for row in others if id(row) not in left_out]


def _is_label(name: str, others: Sequence[str], labels: Collection[str]) -> bool:
    """Whether a first cell is a known label, in a column of such."""
    return name in labels and 2 * sum(cell in labels for cell in others) > len(others)


def _is_text(cell: str) -> bool:
    """Of three words or more, or in a script that need not part them."""
    return len(cell.split()) > 2 or (len(cell) > 3 and not cell.isascii())


def _is_no_number(name: str, others: Sequence[str]) -> bool:
    """Whether all others are numbers, and the first cell is none and does not begin as one."""
    return not name[:1].isdigit() and bool(name) and not is_number(name) and all(map(is_number, others))


def _is_no_class(name: str, others: Sequence[str]) -> bool:
    """Whether the others are few values, nearly all of which occur again, and the first cell is none of them."""
    if not name or name in others or is_number(name) or len(others) < _FEWEST_ROWS:
        return False
    counts = Counter(others)
    recurring = sum(count > 1 for count in counts.values())
    return len(counts) <= max(2, len(others) // 3) and recurring >= 0.9 * len(counts)
