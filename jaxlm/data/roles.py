"""Which columns of a table are its text, its second text and its label."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data.columns import ID_NAMES, NAMED_PAIRS, PAIR_NAMES, TEXT_NAMES, Columns, Known, keys_of, value_of
from jaxlm.data.files import Row
from jaxlm.data.header import is_header, looks_like_header, without_header
from jaxlm.data.labels import LabelKind, label_name
from jaxlm.errors import WhichColumn

if TYPE_CHECKING:
    from jaxlm.data.sources import Problems

log = logging.getLogger("jaxlm")

_SAMPLE = 1000  # rows by which columns are told apart


class Roles(NamedTuple):
    text: str | int
    pair: str | int | None
    label: str | int | None
    flags: dict[str, str | int]  # where each label has a column of its own


def roles_of(
    source: str,
    rows: list[Row],
    settings: DataSettings,
    problems: "Problems",
    *,
    label_kind: LabelKind | None,
    known: Known,
) -> tuple[Columns, Roles, list[Row]]:
    """The columns, what they serve as, and the rows without a header line.

    Raises:
      WhichColumn: that has to be told.
      UserError: there is no such column, or one would serve as two things.
    """
    labelled = label_kind is not None
    named = isinstance(rows[0].values, dict)
    width = None if named else len(rows[0].values)
    names: list[str | int] = keys_of(rows) if named else list(range(width or 0))
    header, strange_names = None, False
    if not named and not (has_header := is_header(source, rows, settings, known)):
        has_header = strange_names = looks_like_header(source, rows, settings, known)
    if not named and has_header:
        header, rows = without_header(source, rows, problems)
    # Of two columns without names the labels that are known say more than where they stood before.
    two = not named and (header is None or strange_names) and width == 2
    columns = Columns(source, names, header, known._replace(columns={}) if two and not known.names else known)
    text, pair = columns.find_pair(settings, TEXT_NAMES, PAIR_NAMES, alone=not settings.pairs)
    if pair is None and not columns.is_alone(settings):
        both = ([columns.find("", None, [name]) for name in names] for names in NAMED_PAIRS)
        text, pair = next((found for found in both if None not in found), (text, pair))
    if settings.text_pair is None and not settings.pairs and columns.is_empty(pair, rows):
        log.info("%s: no second texts: column %s is empty", source, pair)
        pair = None
    label = columns.find_label(settings.label, of_classes=label_kind != "number") if labelled else None
    if label is None and text is None and pair is None and two:
        if settings.pairs and not labelled:
            text, pair = 0, 1
        else:
            text, guessed = _tell_apart(source, rows, known, labelled=labelled)
            label = guessed if labelled else None
    flags = _flags(columns, rows, label, known) if label_kind == "set" else {}
    if labelled and label is None and not flags:
        label = columns.at_its_place("label", but=(text, pair))
        if label is None and text is not None and text == columns.served_before("text") and len(names) == 2:
            new = (of for name, of in columns.by_name.items() if name.lower() not in ID_NAMES)
            label = next((of for of in new if of not in (text, pair)), None)
        if label is None:
            raise WhichColumn(f"{source}: which column is the label? {columns.offer('label')}")
    if text is None:
        before = None if columns.unnamed else columns.served_before("label")
        others = (label, pair, *flags.values(), columns.by_name.get(""), before)
        rest = [name for name in names if name not in others]
        text = rest[0] if len(rest) == 1 else columns.at_its_place("text", but=others)
        if text is None:
            raise WhichColumn(f"{source}: which column is the text? {columns.offer('text')}")
    if settings.pairs and pair is None:
        offer = columns.offer("text_pair")
        raise WhichColumn(f"{source}: pairs are meant, and which column is the second text? {offer}")
    columns.refuse_twice(text, pair, label)
    return columns, Roles(text, pair, label, flags), rows


def _flags(columns: Columns, rows: Sequence[Row], label: str | int | None, known: Known) -> dict[str, str | int]:
    """The columns of labels that have one each, by name; none where another column holds lists of them."""
    if label is not None:
        if not known.labels:
            columns.refuse_flag(label, rows)
        return {}
    if known.labels and not columns.unnamed and columns.by_name.keys() >= set(known.labels):
        return columns.named(known.labels)
    flags = columns.flags(rows, known.labels)
    # Where none is a known label they are about something else.
    return columns.named(known.labels) if any(name in known.labels for name in flags) else flags


def _tell_apart(source: str, rows: Sequence[Row], known: Known, *, labelled: bool) -> tuple[int, int]:
    """(text, label) of a file of two unnamed columns: the label's values are known, or they were at that position, or
    they repeat and are shorter.

    Raises:
      WhichColumn: not `labelled`, where neither need be one, and none is twice as long as the other.
    """
    sample = rows[:_SAMPLE]
    columns = [[label_name(value_of(row, place)) for row in sample] for place in (0, 1)]
    labels = [sum(value in known.labels for value in column) for column in columns]
    if labels[0] != labels[1]:
        label = 0 if labels[0] > labels[1] else 1
        return 1 - label, label
    distinct = [len(set(column)) for column in columns]
    size = [sum(map(len, column)) for column in columns]
    if not labelled and max(size) >= 2 * min(size):
        return size.index(max(size)), size.index(min(size))
    if (text := known.columns.get("text")) in ("0", "1"):
        return int(text), 1 - int(text)
    if not labelled:
        raise WhichColumn(f"{source}: which column is the text? --data.text 0 or --data.text 1")
    label = 0 if (distinct[0], size[0]) < (distinct[1], size[1]) else 1
    return 1 - label, label
