"""Texts that belong together, two or three to a row: a first one, one that fits it, perhaps one that does not, and
perhaps a score or a label of the pair."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.columns import Columns
from jaxlm.data.files import Row
from jaxlm.data.header import is_number, looks_like_header
from jaxlm.data.labels import label_name
from jaxlm.data.schemes import SPLITS, is_scheme, scheme_rows
from jaxlm.data.sources import Problems, Table, keys_of, rows_of_a_table
from jaxlm.errors import UserError, WhichColumn

log = logging.getLogger("jaxlm")

# What data sets commonly call them; the first that is there serves.
_FIRST = ("anchor", "query", "sentence1", "question1", "question", "premise", "text_a", "text", "sentence", "sent0",
          "source")  # fmt: skip
_SECOND = ("positive", "sentence2", "question2", "answer", "passage", "document", "hypothesis", "text_b", "text_pair",
           "response", "target", "paraphrase", "sent1")  # fmt: skip
_NEGATIVE = ("negative", "hard_negative", "negative_1", "hard_neg")
_SCORE = ("score", "similarity", "similarity_score", "label", "labels", "is_duplicate", "gold_label", "relevance")


def read_groups(spec: str, split: str, settings: DataSettings, *, labelled: bool = True) -> Table:
    """Reads a file, or what a scheme names, as a table of text groups; `labels` are strings.

    Columns are chosen by `settings` or found by their usual names. In files without names the first two are the pair;
    a third is its score where it holds numbers only, and otherwise a text that does not fit.

    Args:
      spec: a path, `tfds:NAME[:SPLIT]` or `hf:NAME[:SPLIT]`.
      split: "train", "dev" or "test": which part is meant where `spec` does not say.
      labelled: read scores and negatives too, where they are there, and ask for pairs; else single texts do.

    Raises:
      UserError: no such data, no such column, or (unless `settings.bad_rows` is "skip") a row that cannot be read.
    """
    problems = Problems(spec, settings.bad_rows)
    rows = scheme_rows(spec, split) if is_scheme(spec) else files.read_rows(Path(spec), SPLITS[split], columns=labelled)
    good = rows_of_a_table(spec, rows, settings, problems)
    columns, named = _columns(spec, good, settings)
    first = columns.find("text", settings.text, _FIRST)
    second = columns.find("text_pair", settings.text_pair, _SECOND)
    negative = columns.find("negative", settings.negative, _NEGATIVE) if labelled else None
    score = columns.find("label", settings.label, _SCORE) if labelled else None
    found = (first, second, negative, score)
    if not named and found == (None,) * 4 and len(columns.columns) <= 3:
        first, second, third = [*columns.columns, None, None][:3]
        if labelled and third is not None:
            negative, score = (None, third) if all(is_number(list(row.values)[2]) for row in good) else (third, None)
    if first is None and second is None and len(columns.columns) == 1:
        first = columns.columns[0]
    if first is None:
        raise WhichColumn(f"{spec}: which column is the first text? {columns.offer('text')}")
    if second is None and (labelled or negative is not None):
        raise WhichColumn(f"{spec}: which column is the second text? {columns.offer('text_pair')}")
    if len(chosen := [column for column in (first, second, negative, score) if column is not None]) > len(set(chosen)):
        raise UserError(f"{spec}: a column is chosen twice. {columns.offer('text')}")
    columns.say({"text": first, "second text": second, "negative": negative, "score": score})
    if labelled:
        good = columns.of_split(good, split, chosen)
    table = _table(spec, good, (first, second, negative), score, problems)
    columns.refuse_ids(settings, text=table.texts, text_pair=table.pairs, negative=table.negatives)
    if not len(table):
        raise UserError(f"{spec}: no usable row ({problems.counts})")
    if problems.counts:
        listing = ", ".join(f"{count} {kind}" for kind, count in problems.counts.items())
        log.warning("%s: rows left out: %s", spec, listing)
    return table


def _columns(spec: str, rows: list[Row], settings: DataSettings) -> tuple[Columns, bool]:
    """The columns, and whether they have names; a header line is taken off `rows`."""
    values = rows[0].values
    if isinstance(values, dict):
        return Columns(spec, keys_of(rows), None), True
    cells = [str(value).strip() for value in values]
    names: list[str | int] = list(range(len(cells)))
    chosen = (settings.text, settings.text_pair, settings.negative, settings.label)
    asked = {name for name in chosen if name and not name.isdigit()}
    usual = {*_FIRST, *_SECOND, *_NEGATIVE, *_SCORE}
    header = settings.header == "yes"
    if settings.header == "auto":
        header = bool(asked & set(cells)) or sum(cell.lower() in usual for cell in cells) >= 2
    strange_names = not header and looks_like_header(spec, rows, settings)
    if not header and not strange_names:
        return Columns(spec, names, None), False
    rows.pop(0)
    if not rows:
        raise UserError(f"{spec}: a header line and no rows")
    return Columns(spec, names, cells), not strange_names


def _table(spec: str, rows: Iterable[Row], texts: tuple[Any, Any, Any], score: Any, problems: Problems) -> Table:
    chosen = [column for column in texts if column is not None]
    columns: dict[Any, list[str]] = {column: [] for column in chosen}
    labels: list[str] = []
    places: list[str] = []
    for row in rows:
        try:
            cells = [row.values[column] for column in chosen]
            label = None if score is None else row.values[score]
        except KeyError as error:
            problems.report(row, "a column is missing", f" ({error.args[0]})")
            continue
        except IndexError:
            problems.report(row, "wrong number of columns", f" ({len(row.values)})")
            continue
        strange = [cell for cell in cells if cell is not None and not isinstance(cell, str)]
        if strange:
            problems.report(row, "text that is no string", f" ({strange[0]!r})")
        elif not all(cell is not None and cell.strip() for cell in cells):
            problems.report(row, "empty text")
        elif isinstance(label, (list, dict)):
            problems.report(row, "a label that is neither name nor number", f" ({label!r})")
        elif score is not None and (label is None or not label_name(label)):
            problems.report(row, "no label")
        else:
            for column, cell in zip(chosen, cells, strict=True):
                columns[column].append(cell.strip())
            labels.append(label_name(label))
            places.append(row.place)
    first, second, negative = (None if column is None else columns[column] for column in texts)
    return Table(spec, first or [], second, None if score is None else labels, places, None, problems.counts, negative)
