"""Whether the lines of a file without known column names are rows, and whether the first is one of names."""

import itertools
import logging
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
    """Whether the lines of a txt file are rows. They are where all have as many tabs or nearly all have some, or where
    the text's column is known; a single line is one where a part of it is a known label."""
    if not path.is_file() or files.data_format(path) != ".txt":
        return False
    head = [line.split("\t") for _, line in itertools.islice(files.lines(path), _SAMPLE) if line and line.strip()]
    if not head or len(head[0]) < 2:
        return False
    text = settings.text or known.columns.get("text", "")
    if (text.isdigit() and int(text) < len(head[0])) or (known.names | {text}).intersection(map(str.strip, head[0])):
        return True
    if len(head) == 1:
        return any(cell.strip() in known.labels for cell in head[0])
    return sum(len(cells) > 1 for cells in head) >= 0.9 * len(head)


def is_header(source: str, rows: Sequence[Row], settings: DataSettings, known: Known = NOTHING) -> bool:
    """Whether the first of `rows` names columns: as `settings` say, by the columns that are chosen or known, or by
    names that data sets commonly give them."""
    if settings.header != "auto":
        return settings.header == "yes"
    cells = [str(value).strip() for value in rows[0].values]
    below = [[str(value).strip() for value in row.values] for row in rows[1 : _SAMPLE + 1]]
    all_known = len(cells) > 1 and NAMES.issuperset(map(str.lower, cells)) and len(set(cells)) == len(cells)
    if all_known:
        below = [row for row in below if row != cells]  # files that were put together, each with its header
    # A value that occurs again in its column is none of a header.
    again = {cell for place, cell in enumerate(cells) if any(cell == row[place] for row in below if place < len(row))}
    if all_known and not again:
        return True
    first = {cell.lower() for cell in cells} - {cell.lower() for cell in again}
    asked = {getattr(settings, name) for name in ("text", "text_pair", "label")} | known.names
    asked = {name.lower() for name in asked if name and not name.isdigit()}
    if len(cells) == 1:  # any line of a txt file may be a text
        plain = {".csv", ".tsv"} & set(Path(source).suffixes) and first & NAMES
        return bool(asked & first or plain)
    if len(first & {*TEXT_NAMES, *PAIR_NAMES}) >= 2 or (first & set(TEXT_NAMES) and first & set(ID_NAMES)):
        return True
    return bool(asked & first or first & set(LABEL_NAMES) or first & {"sentence", "text", "text_a", "index"})


def looks_like_header(source: str, rows: Sequence[Row], settings: DataSettings, known: Known = NOTHING) -> bool:
    """Whether the first of `rows` looks like names of columns, and no other; where it does, that is said.

    Its cells are short and differ, and in some column it is unlike all others: they are numbers and it is none; they
    are few values, nearly all of which occur again, as classes do, and it is none of these; or they are texts, and all
    of its cells are single words.
    """
    if settings.header != "auto" or known.columns.get("header") == "no" or len(rows) < 2:
        return False
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
    words = all(_ONE_WORD.fullmatch(name) for name in names)
    stands_out = any(_stands_out(name, column, words) for name, column in zip(cells, columns, strict=False))
    if not counted and not stands_out:
        return False
    log.info("%s: the first line is taken for names of columns: %s (a row? --data.header no)", source, ", ".join(cells))
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
    for row in others:
        if row.values == header.values:
            problems.report(row, "the line of column names again")
    others = [row for row in others if row.values != header.values]
    if not others:
        raise UserError(f"{source}: a header line and no rows")
    return [str(value).strip() for value in header.values], others


def _is_label(name: str, others: Sequence[str], labels: Collection[str]) -> bool:
    """Whether a first cell is a known label, in a column of such."""
    return name in labels and 2 * sum(cell in labels for cell in others) > len(others)


def _is_text(cell: str) -> bool:
    """Of three words or more, or in a script that need not part them."""
    return len(cell.split()) > 2 or (len(cell) > 3 and not cell.isascii())


def _stands_out(name: str, others: Sequence[str], words: bool) -> bool:
    if not name or name in others or is_number(name):
        return False
    if all(map(is_number, others)):
        return True
    if len(others) < _FEWEST_ROWS:
        return False
    if words and all(map(_is_text, others)):
        return True
    counts = Counter(others)
    recurring = sum(count > 1 for count in counts.values())
    return len(counts) <= max(2, len(others) // 3) and recurring >= 0.9 * len(counts)
