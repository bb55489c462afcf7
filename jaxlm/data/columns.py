"""Which column serves what: by a setting, by the names that data sets commonly give it, or by what it holds."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.files import Row
from jaxlm.data.schemes import SPLITS
from jaxlm.errors import NoSuchColumn, UserError, WhichColumn

log = logging.getLogger("jaxlm")

ID_NAMES = ("id", "_id", "idx", "index", "qid", "guid", "uid", "pid", "")  # pandas' index has no name
# What data sets commonly call their columns; the first that is there serves.
TEXT_NAMES = ("text", "sentence", "text_a", "sentence1", "question1", "premise", "question", "review", "content",
               "document", "passage", "utterance", "query", "tweet", "comment", "comment_text", "message", "sentence_a",
              "#1 string", "body", "abstract", "article", "description", "selftext", "title")  # fmt: skip
PAIR_NAMES = ("text_pair", "text_b", "sentence2", "question2", "hypothesis", "hypo", "sentence_b", "#2 string")
# Each of the two is a text by itself elsewhere; beside one another, as in QNLI, BoolQ and MS MARCO, they are a pair.
NAMED_PAIRS = (("question", "sentence"), ("question", "passage"), ("query", "passage"), ("query", "document"))
SCORE_NAMES = (
    "score",
    "similarity",
    "similarity_score",
    "relatedness_score",
)  # of numbers
LABEL_NAMES = ("label", "labels", "gold_label", *SCORE_NAMES, "class", "category", "target", "intent", "sentiment",
                "topic", "polarity", "stance", "stars", "relevance", "quality", "is_duplicate",
                "entailment_judgment", "entailment_label")  # fmt: skip
_PLAIN_LABELS = LABEL_NAMES[:3]  # these leave no doubt
# What else a header line may hold.
_OTHER_NAMES = ("answer", "anchor", "positive", "negative", "response", "prompt", "completion", "paraphrase", "claim",
                "headline", "name", "docno", "docid", "doc_id")  # fmt: skip
NAMES = frozenset((*ID_NAMES[:-1], *TEXT_NAMES, *PAIR_NAMES, *LABEL_NAMES, *_OTHER_NAMES))
_SPLIT_NAMES = ("split", "partition")  # of a column that says which split a row belongs to
KINDS_OF_SPLIT = {name: split for split, names in SPLITS.items() for name in names} | {
    "training": "train", "development": "dev", "trial": "dev", "eval": "dev", "evaluation": "dev", "testing": "test",
}  # fmt: skip


def flag(value: Any) -> bool | None:
    """What 0, 1, true or false says; None of anything else."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    return {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}.get(text)


def _is_empty(value: Any) -> bool:
    return value is None or str(value).strip().lower() in ("", "nan")


def value_of(row: Row, column: Any) -> Any:
    """A row's value; None where it has none."""
    if isinstance(row.values, dict):
        return row.values.get(column)
    return row.values[column] if column < len(row.values) else None


def keys_of(rows: Iterable[Row]) -> list[Any]:
    """The names of columns in any of the rows: an object need not have all of them."""
    return list(dict.fromkeys(key for row in rows for key in row.values))


def joined(text: Any) -> Any:
    """A text that is a list of sentences, as one string; anything else as it is."""
    is_list = isinstance(text, list) and all(isinstance(sentence, str) for sentence in text)
    return " ".join(text) if is_list else text


def rows_of_split(
    source: str, rows: Iterable[Row], split: str, name: str | None = None, column: Any = None
) -> list[Row]:
    """The rows of the split that is wanted, where a column says of each which it belongs to, and there are several.

    Rows that cannot be read stay; values that name no split, or none at all, belong to none.

    Args:
      name, column: of the one that says so; unset: by its name, of rows that are objects.

    Raises:
      UserError: no row belongs to the wanted one.
    """
    rows = list(rows)
    if name is None:
        keys = next((list(row.values) for row in rows if isinstance(row.values, dict)), [])
        name = column = next((key for key in keys if str(key).lower() in _SPLIT_NAMES), None)
    if name is None:
        return rows
    stated = [str(value_of(row, column) or "").strip().lower() for row in rows]
    kinds = sorted({value for value, row in zip(stated, rows, strict=True) if value and not row.problem})
    if len(kinds) < 2 or not any(kind in KINDS_OF_SPLIT for kind in kinds):
        return rows
    belongs = [KINDS_OF_SPLIT.get(value) for value in stated]
    if split not in belongs:
        raise UserError(f"{source}: its column {name} has no rows of {split}; it has {', '.join(kinds[:10])}")
    kept = [row for row, kind in zip(rows, belongs, strict=True) if kind == split or row.problem]
    level = logging.INFO if str(name).lower() in _SPLIT_NAMES else logging.WARNING
    log.log(
        level, "%s: %d of %d rows are those of %s, by column %s", source, belongs.count(split), len(rows), split, name
    )
    return kept


class Known(NamedTuple):
    """What the training data, or a model, tell of a file that is read later."""

    labels: Collection[str] = ()
    columns: Mapping[str, str] = MappingProxyType({})
    """By setting: names, and positions that a person chose; `header` is "no" where the first line was a row."""

    @property
    def names(self) -> set[str]:
        """The names of the columns."""
        return {name for of, name in self.columns.items() if of != "header" and not name.isdigit()}


NOTHING = Known()
SETTINGS = ("text", "text_pair", "negative", "label")  # those that choose a column of a table
Read = TypeVar("Read")


def with_columns(columns: Mapping[str, str], settings: DataSettings, read: Callable[[DataSettings], Read]) -> Read:
    """`read(settings)` with the columns that served before where `settings` choose none, if they are there: by name,
    and by position where nothing else tells them."""
    told: dict[str, Any] = {of: column for of, column in columns.items() if getattr(settings, of) is None}
    named = {name: column for name, column in told.items() if name in ("words", "tags") or not column.isdigit()}
    if named:
        with contextlib.suppress(NoSuchColumn, WhichColumn):
            return read(dataclasses.replace(settings, **named))
    try:
        return read(settings)
    except WhichColumn:
        with contextlib.suppress(NoSuchColumn):
            return read(dataclasses.replace(settings, **told))
        raise


class Columns:
    """Finds a column by a setting (name or position), by what served before, or by the names that data sets commonly
    give it."""

    def __init__(self, source: str, names: list[str | int], header: list[str] | None, known: Known = NOTHING):
        self.source = source
        self.known = known
        self.by_name = {str(name): column for name, column in zip(header or names, names, strict=True)}
        self.columns = names
        self._header = header or []
        self.unnamed = header is None and all(isinstance(name, int) for name in names)

    def find(
        self, setting: str, asked: str | None, usual: Sequence[str], but: str | int | None = None
    ) -> str | int | None:
        """The column that is asked for or, first by what served before and then by the first of the usual names that is
        there, another one than `but`."""
        if asked is not None:
            if asked in self.by_name:
                return self.by_name[asked]
            if asked.isdigit() and int(asked) < len(self.columns):
                return self.columns[int(asked)]
            raise NoSuchColumn(f"{self.source}: --data.{setting} {asked}: no such column. {self.offer(setting)}")
        if (served := self.served_before(setting)) not in (None, but):
            return served
        lowered = {name.lower(): column for name, column in self.by_name.items() if column != but}
        lowered |= {name: column for name, column in self.by_name.items() if column != but}
        return next((lowered[name] for name in usual if name in lowered), None)

    def served_before(self, setting: str) -> str | int | None:
        """The column of the name that served before, in small letters or capitals; of unnamed ones, at the position."""
        name = self.known.columns.get(setting, "")
        alike = {other.lower(): column for other, column in self.by_name.items()} if name else {}
        return self.by_name.get(name, alike.get(name.lower())) if name else None

    def at_its_place(self, setting: str, but: Collection[str | int | None]) -> str | int | None:
        """The column at the position that a person chose before, unless it is one of `but`: the last resort."""
        place = self.known.columns.get(setting, "")
        found = self.columns[int(place)] if place.isdigit() and int(place) < len(self.columns) else None
        return None if found in but else found

    def is_alone(self, settings: DataSettings) -> bool:
        """Whether a text was chosen, now or by what served before, and no second one."""
        served = self.served_before("text") is not None and "text_pair" not in self.known.columns
        return settings.text is not None or served

    def find_pair(
        self, settings: DataSettings, firsts: Sequence[str], seconds: Sequence[str], *, alone: bool
    ) -> tuple[str | int | None, str | int | None]:
        """The columns of a text and of a second one; `alone`: one that is chosen by itself stays so."""
        second = None if settings.text_pair is None else self.find("text_pair", settings.text_pair, ())
        first = self.find("text", settings.text, firsts, but=second)
        if second is None and not (alone and self.is_alone(settings)):
            second = self.find("text_pair", None, seconds, but=first)
        return first, second

    def find_label(self, asked: str | None, *, of_classes: bool) -> str | int | None:
        """The label's column, where no more than one can be meant.

        Raises:
          WhichColumn: several have names of labels.
        """
        usual = sorted(LABEL_NAMES, key=SCORE_NAMES.__contains__) if of_classes else LABEL_NAMES
        found = self.find("label", asked, usual)
        there = {name.lower(): name for name in self.by_name if name.lower() in LABEL_NAMES}
        doubtful = [name for name in there if name not in SCORE_NAMES]
        plain = any(name in there for name in _PLAIN_LABELS)
        if not of_classes and len(doubtful) < len(there):  # of a score and a label, either may be meant
            doubtful, plain = (list(there), False) if plain else ([], True)
        if asked is None and self.served_before("label") is None and len(doubtful) > 1 and not plain:
            names = ", ".join(there[name] for name in doubtful)
            raise WhichColumn(f"{self.source}: which column is the label, of {names}? {self.offer('label')}")
        return found

    def is_empty(self, column: str | int | None, rows: Sequence[Row]) -> bool:
        """Whether a column is there and has nothing in any row."""
        return column is not None and all(_is_empty(value_of(row, column)) for row in rows)

    def refuse_twice(self, *chosen: str | int | None) -> None:
        """Stops where a column would serve as two things."""
        columns = [column for column in chosen if column is not None]
        if len(columns) > len(set(columns)):
            raise UserError(f"{self.source}: a column is chosen twice. {self.offer('text')}")

    def flags(self, rows: Sequence[Row], known_labels: Collection[str] = ()) -> dict[str, str | int]:
        """The columns, by name, that hold nothing but 0 and 1, if there are several: one for each label that may apply,
        as the Jigsaw data sets have them. A few of their cells may be empty, which is an error of that row. Warns of
        columns that are none of them for a few strange cells."""
        found, almost = {}, {}
        for name, column in self.by_name.items() if not self.unnamed else ():
            cells = [value_of(row, column) for row in rows]
            odd = [place for place, cell in enumerate(cells) if flag(cell) is None]
            stray = [place for place in odd if not _is_empty(cells[place])]
            if len(odd) >= len(cells) / 2:
                continue
            if not stray:
                found[name] = column
            elif len(stray) <= len(cells) / 20 and name not in known_labels:
                almost[name] = f"{rows[stray[0]].place} ({cells[stray[0]]!r})"
        if len(found) < 2:
            return {}
        for name, where in almost.items():
            log.warning("%s: column %s is no label: it holds 0 and 1, but for %s", self.source, name, where)
        return found

    def named(self, labels: Collection[str]) -> dict[str, str | int]:
        """The columns of labels that a model or its training data have, whatever is in their cells.

        Raises:
          UserError: one of them is not there.
        """
        if missing := sorted(set(labels) - self.by_name.keys()):
            raise UserError(
                f"{self.source}: each label has a column of its own, and there is none for {', '.join(missing[:10])} "
                f"among {', '.join(self.by_name)}"
            )
        return {name: column for name, column in self.by_name.items() if name in labels}

    def refuse_flag(self, column: Any, rows: Sequence[Row]) -> None:
        """Stops where a column that should name labels says yes or no."""
        if all(flag(value_of(row, column)) is not None for row in rows):
            name = next(name for name, of in self.by_name.items() if of == column)
            raise UserError(
                f"{self.source}: column {name} holds nothing but 0 and 1. Where each label has a column of its own, "
                "leave out --data.label; labels that are called so come as lists"
            )

    def of_split(self, rows: list[Row], split: str | None, chosen: Collection[Any]) -> list[Row]:
        """`rows_of_split`, by the column that is called so or holds nothing but names of splits, unless it is chosen
        for something else."""
        free = {} if split is None else {name: of for name, of in self.by_name.items() if of not in chosen}
        named = next((name for name in free if name.lower() in _SPLIT_NAMES), None)
        name = named or next((name for name, of in free.items() if self._tells(of, split, rows)), None)
        if split is None or name is None:
            return rows
        return rows_of_split(self.source, rows, split, name, self.by_name[name])

    def _tells(self, column: str | int, split: str | None, rows: Sequence[Row]) -> bool:
        """Whether a column holds nothing but names of splits, among them those of `split` and of the training."""
        kinds = set()
        for row in rows:
            kinds.add(KINDS_OF_SPLIT.get(str(value_of(row, column)).strip().lower()))
            if None in kinds:
                return False
        return len(kinds) > 1 and kinds >= {"train", split}

    def refuse_ids(self, settings: DataSettings, **texts: Sequence[str] | None) -> None:
        """Stops where all texts of a column that nobody chose are numbers, by the setting that would choose it."""
        for setting, values in texts.items():
            guessed = len(self.columns) > 1 and getattr(settings, setting) is None
            if guessed and values and len(values) > 1 and all(text.isascii() and text.isdigit() for text in values):
                what = {"text": "text", "text_pair": "second text"}.get(setting, setting)
                raise UserError(
                    f"{self.source}: every {what} is a whole number, such as {values[0]}; these look like ids. "
                    f"{self.offer(setting)}"
                )

    def served(self, settings: DataSettings, **columns: str | int | None) -> dict[str, str]:
        """`Known.columns` of the columns found, by setting."""
        found = {setting: column for setting, column in columns.items() if column is not None}
        names = dict(zip(self.columns, self._header or map(str, self.columns), strict=True))
        if self.unnamed:
            served = {setting: str(column) for setting, column in found.items() if getattr(settings, setting)}
            return {"header": "no"} | served
        single = {setting: names[column] for setting, column in found.items() if self._header.count(names[column]) < 2}
        for setting in found.keys() - single.keys():
            if not (getattr(settings, setting) or "").isdigit():
                raise UserError(
                    f"{self.source}: two columns are called {names[found[setting]]!r}; give one of them another name, "
                    f"or choose by position: --data.{setting}"
                )
        return single

    def say(self, chosen: dict[str, str | int | None]) -> None:
        """Says which columns serve what, where others do not."""
        names = {column: name for name, column in self.by_name.items()}
        if unused := [str(names.get(column, column)) for column in self.columns if column not in chosen.values()]:
            found = {what: names.get(column, column) for what, column in chosen.items() if column is not None}
            used = [what if what.endswith(f" {name}") else f"{what} {name}" for what, name in found.items()]
            log.info("%s: columns: %s; not used: %s", self.source, ", ".join(used), ", ".join(unused))

    def offer(self, setting: str) -> str:
        if len(self.columns) == 1 and setting != "text" and files.is_text_table(self.source):
            return (
                "There is but one column. Columns have tabs between them in txt and tsv files, and in csv files "
                "commas, semicolons or tabs"
            )
        names = ", ".join(self.by_name)
        return f"Columns: {names} - choose with --data.{setting} NAME (or a position from 0)"
