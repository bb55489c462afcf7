"""Texts that belong together, two or three to a row: a first one, one that fits it, perhaps one that does not, and
perhaps a score or a label of the pair."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import readers
from jaxlm.data.columns import ID_NAMES, NOTHING, TEXT_NAMES, Columns, Known, keys_of, value_of
from jaxlm.data.files import Row
from jaxlm.data.header import has_columns, is_number, looks_like_header, without_header
from jaxlm.data.labels import label_name, read_label
from jaxlm.data.schemes import SPLITS, is_scheme, scheme_rows
from jaxlm.data.sources import Problems, Table, rows_of_a_table
from jaxlm.errors import UserError, WhichColumn

log = logging.getLogger("jaxlm")


class GroupNames(NamedTuple):
    """What the columns are usually called, in lower case; the first that is there serves."""

    first: Sequence[str]
    second: Sequence[str]
    score: Sequence[str]
    negative: Sequence[str] = ("negative", "hard_negative", "negative_1", "hard_neg", "neg", "negatives",
                               "hard_negatives", "negative_passages", "hard_negative_ctxs")  # fmt: skip


_FIT = ("positive", "pos", "positives", "positive_passages", "positive_ctxs")
PAIRS = GroupNames(
    first=("anchor", "query", "sentence1", "question1", "question", "premise", "text_a", "text", "sentence", "sent0",
           "sentence_a", "source"),
    second=(*_FIT, "sentence2", "question2", "answer", "passage", "document", "hypothesis", "text_b", "text_pair",
            "sentence_b", "response", "target", "paraphrase", "sent1", "sentence"),
    score=("score", "similarity", "similarity_score", "relatedness_score", "label", "labels", "is_duplicate",
           "gold_label", "relevance"),
)  # fmt: skip
PASSAGES = GroupNames(
    first=("query", "question", "anchor", "text", "text_a", "sentence", "sentence1"),
    second=(
        *_FIT,
        "passage",
        "document",
        "answer",
        "doc",
        "response",
        "text_pair",
        "text_b",
        "sentence2",
        "content",
        "sentence",
    ),
    score=("label", "labels", "relevance", "score", "grade", "rel"),
)


def read_groups(
    spec: str,
    split: str,
    settings: DataSettings,
    *,
    labelled: bool = True,
    names: GroupNames = PAIRS,
    judged: bool = False,
    known: Known = NOTHING,
) -> Table:
    """Reads a file, or what a scheme names, as a table of text groups; `labels` are strings.

    Columns are chosen by `settings` or found by their usual names. In files without names the first two are the pair;
    a third is its score where it holds numbers, and otherwise a text that does not fit. A row may hold a list of the
    texts that fit, and one of those that do not (strings, or objects of title and text): it becomes as many rows as the
    longer list has texts, the shorter one taken in turn.

    Args:
      spec: a path, `tfds:NAME[:SPLIT]` or `hf:NAME[:SPLIT]`.
      split: "train", "dev" or "test": which part is meant where `spec` does not say.
      labelled: read scores and negatives too, where they are there, and ask for pairs; else single texts do.
      names: by which columns are found that `settings` does not choose.
      judged: of pairs alone, whose labels are numbers: where there are texts that do not fit, each is the second text
        of a row of its own, labelled 0, and each that fits of one labelled 1.
      known: of the training data or the model.

    Raises:
      UserError: no such data, no such column, or (unless `settings.bad_rows` is "skip") a row that cannot be read.
    """
    problems = Problems(spec, settings.bad_rows)
    pairs = labelled or (judged and settings.text_pair is not None)
    rows = (
        scheme_rows(spec, split)
        if is_scheme(spec)
        else readers.read_rows(Path(spec), SPLITS[split], columns=pairs or has_columns(Path(spec), settings, known))
    )
    good = rows_of_a_table(spec, rows, settings, problems, known)
    columns, named, good = _columns(spec, good, settings, names, problems, known)
    first, second = columns.find_pair(settings, names.first, names.second, alone=not (labelled or judged))
    negative = columns.find("negative", settings.negative, names.negative) if labelled else None
    score = columns.find("label", settings.label, names.score) if labelled else None
    if settings.negative is None and negative is not None and all(not value_of(row, negative) for row in good):
        log.info("%s: no negatives: column %s is empty", spec, negative)
        negative = None
    found = (first, second, negative, score)
    if not named and found == (None,) * 4 and len(columns.columns) <= 3:
        first, second, third = [*columns.columns, None, None][:3]
        if labelled and third is not None:
            numbers = sum(is_number(list(row.values)[2]) for row in good)
            negative, score = (None, third) if numbers > len(good) / 2 else (third, None)
    if first is None and second is None and len(columns.columns) == 1:
        first = columns.columns[0]
    if first is None:
        raise WhichColumn(f"{spec}: which column is the first text? {columns.offer('text')}")
    if second is None and (labelled or negative is not None):
        raise WhichColumn(f"{spec}: which column is the second text? {columns.offer('text_pair')}")
    if judged and labelled and negative is not None:
        if settings.label is None:
            score = None
        elif settings.negative is None:
            negative = None
        else:
            raise UserError(f"{spec}: --data.negative and --data.label: a label is that of a pair alone")
    if judged and labelled and negative is None and score is None:
        raise WhichColumn(f"{spec}: which column is the label? {columns.offer('label')}")
    columns.refuse_twice(first, second, negative, score)
    served = columns.served(settings, text=first, text_pair=second, negative=negative, label=score)
    columns.say({"text": first, "second text": second, "negative": negative, "score": score})
    if labelled:
        good = columns.of_split(good, split, (first, second, negative, score))
    table = _table(spec, good, (first, second, negative), score, problems, lists=labelled, judged=judged)
    columns.refuse_ids(settings, text=table.texts, text_pair=table.pairs, negative=table.negatives)
    if not len(table):
        raise UserError(f"{spec}: no usable row ({problems.counts})")
    problems.tell("rows")
    return dataclasses.replace(table, columns=served)


def _columns(
    spec: str, rows: list[Row], settings: DataSettings, usual_names: GroupNames, problems: Problems, known: Known
) -> tuple[Columns, bool, list[Row]]:
    """The columns, whether they have names, and `rows` without a header line."""
    values = rows[0].values
    if isinstance(values, dict):
        return Columns(spec, keys_of(rows), None, known), True, rows
    cells = [str(value).strip() for value in values]
    positions: list[str | int] = list(range(len(cells)))
    chosen = (settings.text, settings.text_pair, settings.negative, settings.label)
    asked = {name for name in chosen if name and not name.isdigit()} | known.names
    usual = set(itertools.chain(*usual_names))
    header = settings.header == "yes"
    if settings.header == "auto":
        lowered = {cell.lower() for cell in cells}
        beside_an_id = bool(lowered & {*usual, *TEXT_NAMES}) and bool(lowered & set(ID_NAMES))
        header = bool(asked & set(cells)) or sum(cell.lower() in usual for cell in cells) >= 2 or beside_an_id
    strange_names = not header and looks_like_header(spec, rows, settings, known)
    if not header and not strange_names:
        return Columns(spec, positions, None, known), False, rows
    cells, rows = without_header(spec, rows, problems)
    return Columns(spec, positions, cells, known), not strange_names, rows


def _table(
    spec: str,
    rows: Iterable[Row],
    texts: tuple[Any, Any, Any],
    score: Any,
    problems: Problems,
    *,
    lists: bool,
    judged: bool,
) -> Table:
    first, second, negative = texts
    unfit_apart = judged and negative is not None
    members = 1 if second is None else 2 if negative is None or judged else 3
    columns: list[list[str]] = [[] for _ in range(members)]
    labels: list[Any] = []
    places: list[str] = []
    for row in rows:
        try:
            label = None if score is None else row.values[score]
            [anchor] = _texts(row.values[first])
            others = [_texts(row.values[column], lists=lists) for column in texts[1:members]]
            unfit = _texts(row.values[negative], lists=lists) if unfit_apart else []
            if not all(others) and not unfit:
                empty = [str(column) for column, texts in zip(texts[1:], others, strict=False) if not texts]
                raise ValueError("an empty list of texts", f" ({', '.join(empty)})")
            if isinstance(label, (list, dict)):
                raise ValueError("a label that is neither name nor number", f" ({label!r})")
            if score is not None and (label is None or not label_name(label)):
                raise ValueError("no label")
            found = _relevance(label) if judged and score is not None else label_name(label)
        except KeyError as error:
            problems.report(row, "a column is missing", f" ({error.args[0]})")
            continue
        except IndexError:
            problems.report(row, "wrong number of columns", f" ({len(row.values)})")
            continue
        except ValueError as error:
            problems.report(row, *error.args)
            continue
        fit = [] if not all(others) else [(anchor, *group) for group in _in_turn(others)]
        for group in fit + [(anchor, text) for text in unfit]:
            for column, text in zip(columns, group, strict=True):
                column.append(text)
        labels += [1.0] * len(fit) + [0.0] * len(unfit) if unfit_apart else [found] * len(fit)
        places += [row.place] * (len(fit) + len(unfit))
    pairs, negatives = [*columns[1:], None, None][:2]
    known = labels if unfit_apart or score is not None else None
    return Table(spec, columns[0], pairs, known, places, None, problems.counts, negatives)


def _relevance(cell: Any) -> float:
    try:
        return float(read_label(cell, "number"))
    except ValueError as error:
        kind, *detail = error.args
        raise ValueError(kind, f"{''.join(detail)}; a grade from 0 on is meant, the larger the better") from None


def _in_turn(columns: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """As many groups as the longest column has texts, the shorter ones over and over."""
    for number in range(max(map(len, columns), default=1)):
        yield tuple(column[number % len(column)] for column in columns)


def _texts(cell: Any, *, lists: bool = False) -> list[str]:
    """The text in a cell or, with `lists`, those in a list of them. `ValueError(problem, detail)` of anything else."""
    if lists and isinstance(cell, list):
        return [text for item in cell for text in _texts(_passage(item))]
    if cell is not None and not isinstance(cell, str):
        raise ValueError("text that is no string", f" ({cell!r})")
    if cell is None or not cell.strip():
        raise ValueError("empty text")
    return [cell.strip()]


def _passage(item: Any) -> Any:
    """An item of a list of passages; one that is an object has a text, and perhaps a title."""
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        return item
    return " ".join(str(item[name]).strip() for name in ("title", "text") if item.get(name))
