"""Whether the first line of a file without known column names is one of names."""

import logging
from collections import Counter
from collections.abc import Sequence

from jaxlm.config import DataSettings
from jaxlm.data.files import Row

log = logging.getLogger("jaxlm")

_FEWEST_ROWS = 5
_SAMPLE = 1000
_LONGEST_NAME, _MOST_WORDS = 40, 4


def looks_like_header(source: str, rows: Sequence[Row], settings: DataSettings) -> bool:
    """Whether the first of `rows` looks like names of columns, and no other; where it does, that is said.

    Its cells are short and differ, and in some column it is unlike all others: they are numbers and it is none, or they
    are few values, nearly all of which occur again, as classes do, and it is none of these.
    """
    if settings.header != "auto" or len(rows) < 2 or len(rows[0].values) < 2:
        return False
    cells, *others = [[str(value).strip() for value in row.values] for row in rows[: _SAMPLE + 1]]
    counted = not cells[0] and all(row[0] == str(number) for number, row in enumerate(others))  # pandas' index
    if len(rows) < 3 and not counted:
        return False
    names = [cell for cell in cells if cell]
    if len(set(names)) < len(names) or any(len(n) > _LONGEST_NAME or len(n.split()) > _MOST_WORDS for n in names):
        return False
    columns = list(zip(*(row[: len(cells)] for row in others), strict=False))
    if not counted and not any(_stands_out(name, column) for name, column in zip(cells, columns, strict=False)):
        return False
    log.info("%s: the first line is taken for names of columns: %s (a row? --data.header no)", source, ", ".join(cells))
    return True


def is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _stands_out(name: str, others: Sequence[str]) -> bool:
    if not name or name in others or is_number(name):
        return False
    if all(map(is_number, others)):
        return True
    if len(others) < _FEWEST_ROWS:
        return False
    counts = Counter(others)
    recurring = sum(count > 1 for count in counts.values())
    return len(counts) <= max(2, len(others) // 3) and recurring >= 0.9 * len(counts)
