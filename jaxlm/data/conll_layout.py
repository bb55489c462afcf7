"""What the columns of a CoNLL file hold, as the lines at its head show."""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.tags import is_tag, types_of, usual_form
from jaxlm.errors import NoSuchColumn, UserError, WhichColumn

log = logging.getLogger("jaxlm")

Cells = list[str]

_DOCUMENT_MARKS = ("-DOCSTART-", "#begin document", "#end document", "###MEDLINE:")  # CoNLL-2003, -2012, JNLPBA
_HEAD = 500  # lines by which a file's columns are told apart
_WORD_NAMES = ("tokens", "token", "words", "word", "form")
_TAG_NAMES = ("ner_tags", "ner_tag", "ner", "slot_tags", "slots", "tags", "tag", "labels", "label")
_SENTENCE_NAMES = ("sentence_id", "sent_id", "sentence", "sentence #", "sentence#", "sentence_no", "id")
_UNTYPED = {*"OBIESMLU"}
_NUMBER = re.compile(r"-?\d+")
_LANGUAGE = re.compile(r"[a-z-]{2,12}:(?!//)")
_BRACKETS = re.compile(r"\([A-Z]\w*\*?\)?|\*\)|\(?\d+\)")  # (DATE*  *)  (GPE)  (12)


class Layout(NamedTuple):
    """What the columns of a CoNLL file hold."""

    words: int
    tags: int
    width: int
    has_tabs: bool
    is_marked: bool  # whether the column of tags holds those of entities, in the usual form
    is_universal: bool  # CoNLL-U: ten columns, of which the first numbers the words
    header: Cells | None  # names of the columns, where the first row holds them
    sentences: int | None  # a column whose value changes where a sentence ends, in place of blank lines
    prefix: str  # a language that stands ahead of each word, as in PAN-X: `en:`


class Head(NamedTuple):
    """The lines at the head of a file, without comments."""

    header: Cells | None
    blocks: list[list[Cells]]  # by sentence
    has_tabs: bool
    is_parted: bool  # whether there is a line after some row that ends a sentence

    @property
    def rows(self) -> list[Cells]:
        return [row for block in self.blocks for row in block]

    @property
    def width(self) -> int:
        """The number of columns of most rows."""
        return max(Counter(map(len, self.rows)).most_common(1)[0][0], 1) if self.blocks else 1

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The cells of each column, without rows that have more or fewer."""
        width = self.width
        return list(zip(*(row for row in self.rows if len(row) == width), strict=True))

    @property
    def has_a_word_a_line(self) -> bool:
        """Whether all lines have as many columns, at least two and none of texts, and blank lines part them."""
        rows = self.rows
        if not len(rows) > len(self.blocks) > 1 or self.width < 2 or any(len(row) != self.width for row in rows):
            return False
        return not any(sum(" " in cell for cell in cells) > len(rows) / 2 for cells in self.columns)

    def named(self, names: Sequence[str]) -> int | None:
        """The column with the first of these names that the header has."""
        lowered = [name.lower() for name in self.header or ()]
        return next((lowered.index(name) for name in names if name in lowered), None)

    def listing(self) -> str:
        """The columns, each with its name or a value."""
        shown = self.header or [cells[0] for cells in self.columns]
        return ", ".join(f"{place} ({cell})" for place, cell in enumerate(shown))


def is_number(asked: str | None) -> bool:
    return asked is not None and _NUMBER.fullmatch(asked) is not None


def read_layout(path: Path, settings: DataSettings, known: Collection[str], *, tags: bool) -> Layout:
    """What the columns hold: as asked, or as their names or the lines at the head of the file show.

    Raises:
      UserError: the columns that are asked for are not there, it cannot be told which hold the words and the tags, or
        nothing parts sentences.
    """
    asked = [name for name in (settings.words, settings.tags) if name is not None and not is_number(name)]
    head = read_head(path, asked)
    rows, width, columns = head.rows, head.width, head.columns
    if rows and path.name.lower().split(".")[-1] == "csv" and "," in "".join(rows[0]):
        raise UserError(
            f"{path}: tagged words are read from columns parted by tabs or spaces, or from jsonl or parquet"
        )
    if tags and rows and width < 2:
        raise UserError(f"{path}: its first row has one column; words and tags are meant, parted by space or tab")
    words = _position(path, head, "words", settings.words)
    place = _position(path, head, "tags", settings.tags if tags or settings.words is None else None)
    is_numbered = width > 2 and all(map(_counts, head.blocks))
    is_universal = is_numbered and width == 10
    tagged = tag_columns(head)
    if words is None:
        words = _words(path, head, known, place, is_numbered, tags=tags)
    elif words % width in tagged or (not tags and words % width in _mostly_tags(head, known)):
        raise NoSuchColumn(f"{path}: --data.words {settings.words}: that column holds tags, as it seems")
    elif not tags and is_number(settings.words):
        _refuse_other_columns(path, head, words)
    if place is None:
        place = _tags(path, head, tagged, words, is_numbered, is_universal, tags=tags)
    if tags and any(_BRACKETS.fullmatch(cell) for cell in (columns[place] if rows else ())):
        raise UserError(
            f"{path}: column {place % width} marks spans by brackets, as OntoNotes does; tags such as O and B-PER, one "
            "a word, are meant"
        )
    if tags and width > 2:
        log.info(
            "%s: words in column %d and tags in column %d, of %d from 0", path, words % width, place % width, width
        )
    elif width > 2 or words:
        log.info("%s: words in column %d, of %d from 0", path, words % width, width)
    prefix = _prefix(columns[words]) if rows else ""
    if prefix:
        log.info("%s: %s ahead of each word is left out", path, prefix)
    is_marked = bool(rows) and place % width in tagged and all(map(is_tag, columns[place]))
    return Layout(
        words, place, width, head.has_tabs, is_marked, is_universal, head.header, _sentences(path, head, words), prefix
    )


def _position(path: Path, head: Head, name: str, asked: str | None) -> int | None:
    if asked is None:
        return None
    if is_number(asked):
        column = int(asked)
        if head.blocks and not -head.width <= column < head.width:
            raise NoSuchColumn(f"{path}: --data.{name} {asked}: there are {head.width} columns")
        return column
    if head.header is None:
        raise NoSuchColumn(
            f"{path}: --data.{name} {asked}: a CoNLL file's columns have numbers: 0, 1, ..., or -1 for the last"
        )
    if asked not in head.header:
        raise NoSuchColumn(f"{path}: --data.{name} {asked}: no such column. Columns: {', '.join(head.header)}")
    return head.header.index(asked)


def _words(path: Path, head: Head, known: Collection[str], place: int | None, is_numbered: bool, *, tags: bool) -> int:
    """The column of the words: by its name, or the first, after one that numbers them.

    Raises:
      UserError: that column holds tags, or the same throughout each sentence; of two columns the other is taken where
        tags are not wanted.
    """
    found = head.named(_WORD_NAMES)
    if found is not None and (place is None or found != place % head.width):
        return found
    words, width, columns = 1 if is_numbered else 0, head.width, head.columns
    if not columns:
        return words
    tagged = tag_columns(head) if tags else {*tag_columns(head), *_mostly_tags(head, known)}
    is_chosen = place is not None and place % width == words
    others = [cells for column, cells in enumerate(columns) if column != words and column not in tagged]
    if is_chosen or (words in tagged and any(not all(map(is_tag, cells)) for cells in others)):
        if is_chosen and width == 2 and 1 - words in tagged and words not in tagged:
            raise NoSuchColumn(f"{path}: --data.tags {place}: the other column holds tags, as it seems")
        if width == 2 and (is_chosen or not tags):
            return 1 - words
        if width == 2:
            raise WhichColumn(f"{path}: its first column holds the tags, as it seems: --data.tags 0 --data.words 1")
        raise _which_words(path, head, f"column {words} holds tags")
    if not is_numbered and _is_of_sentences(head, words):
        raise _which_words(path, head, f"column {words} has one value throughout each sentence")
    return words


def _which_words(path: Path, head: Head, reason: str) -> WhichColumn:
    return WhichColumn(
        f"{path}: {reason}, as it seems; which column holds the words? Columns: {head.listing()} - choose with "
        "--data.words NUMBER"
    )


def _is_of_sentences(head: Head, words: int) -> bool:
    """Whether a column, such as one of the names of documents, has one value in each sentence, and another has not."""
    blocks = [[row for row in block if len(row) == head.width] for block in head.blocks]

    def is_constant(column: int) -> bool:
        return all(len({row[column] for row in block}) < 2 for block in blocks)

    tagged = tag_columns(head)
    return (
        head.width > 2
        and is_constant(words)
        and not all(is_constant(column) for column in range(head.width) if column not in tagged)
    )


def _refuse_other_columns(path: Path, head: Head, words: int) -> None:
    """A position that was right for the model's training data may be that of something else here.

    Raises:
      NoSuchColumn: the column has one value throughout each sentence, or few values, all in capitals, and another has
        more, some of which are not.
    """
    columns = head.columns
    if not columns:
        return
    if _is_of_sentences(head, words):
        raise NoSuchColumn(f"{path}: --data.words {words}: that column has one value throughout each sentence")
    values = set(columns[words])
    in_capitals = sum(value.isupper() and len(value) > 1 for value in values)
    if len(values) > 60 or in_capitals < 2 or any(value.upper() != value for value in values):
        return
    tagged, fewest = tag_columns(head), len(values) + (len(columns) > 2)  # of two columns one is of tags
    if any(
        column not in tagged and len(set(cells)) >= fewest and any(cell != cell.upper() for cell in cells)
        for column, cells in enumerate(columns)
        if column != words % len(columns)
    ):
        raise NoSuchColumn(
            f"{path}: --data.words {words}: that column holds parts of speech, as it seems. Columns: {head.listing()}"
        )


def _tags(
    path: Path, head: Head, tagged: list[int], words: int, is_numbered: bool, is_universal: bool, *, tags: bool
) -> int:
    """The column of the tags.

    Raises:
      UserError: it cannot be told which it is.
    """
    width, columns = head.width, head.columns
    if not tags or not columns:
        return tagged[-1] if tagged else -1
    if is_universal:
        return 3  # the universal part of speech
    named = [column for column in map(head.named, ([name] for name in _TAG_NAMES)) if column not in (None, words)]
    named = [column for column in named if column in tagged] if tagged else named[:1]
    if len(named) == 1 and named[0] is not None:
        return named[0]
    # Else the last, as in CoNLL-2003, also where no line at the head is part of an entity.
    if not is_numbered and (width - 1 in tagged or set(columns[-1]) == {"O"}):
        return -1
    if len(tagged) > 1:
        header = head.header
        found = ", ".join(f"{column} ({header[column]})" if header else str(column) for column in tagged)
        raise WhichColumn(f"{path}: columns {found} hold tags, as it seems; which are meant? --data.tags NUMBER")
    return tagged[0] if tagged else -1


def _sentences(path: Path, head: Head, words: int) -> int | None:
    """The column that says of each word to which sentence it belongs, where no blank line does.

    Raises:
      UserError: its values do not, either.
    """
    column = head.named(_SENTENCE_NAMES)
    if column in (None, words) or head.is_parted or len(head.rows) < 2:
        return None
    runs = [value for value, _ in itertools.groupby(head.columns[column])]
    if len(runs) == len(set(runs)) < len(head.columns[column]):
        return column
    name = (head.header or [])[column]
    raise UserError(
        f"{path}: where does a sentence end? There is no blank line, and column {column} ({name}) does not have one "
        "value for each sentence; put a blank line after each"
    )


def _prefix(words: Sequence[str]) -> str:
    """The language that stands ahead of each word."""
    found = _LANGUAGE.match(words[0])
    return found[0] if found and len(words) > 1 and all(_has_prefix(word, found[0]) for word in words) else ""


def _has_prefix(word: str, prefix: str) -> bool:
    return word.startswith(prefix) and len(word) > len(prefix)


def _counts(block: list[Cells]) -> bool:
    """Whether the first column of a sentence numbers its words from 0 or, as CoNLL-U does, from 1: there with 1-2 for a
    range ahead of its words, and 2.1 for a word that is not there."""
    if not all(re.fullmatch(r"\d+([-.]\d+)?", row[0]) for row in block):
        return False
    numbers = [int(row[0]) for row in block if row[0].isdecimal()]
    return bool(numbers) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def read_head(path: Path, names: Collection[str] = ()) -> Head:
    """The lines at a file's head; `names` are of columns, if its first row holds them."""
    blocks: list[list[Cells]] = [[]]
    has_tabs = is_parted = False
    for _, line in itertools.islice(files.lines(path), _HEAD):
        if line is not None and is_break(line):
            is_parted |= bool(blocks[-1])
            blocks.append([])
        elif line and line[:2] not in ("# ", "#\t"):
            cells = cells_of(line)
            if line.startswith("##") and not blocks[-1] and not is_tag(cells[-1]):
                continue  # KLUE's sentences, each ahead of its words
            blocks[-1].append(cells)
            has_tabs |= "\t" in line
    blocks = [block for block in blocks if block]
    rows = [row for block in blocks for row in block]
    if rows and _is_header(rows[0], rows[1:], names):
        parted = [[row for row in block if row != rows[0]] for block in blocks]
        return Head(rows[0], [block for block in parted if block], has_tabs, is_parted)
    return Head(None, blocks, has_tabs, is_parted)


def _is_header(first: Cells, rest: list[Cells], names: Collection[str]) -> bool:
    """A word may be "token", too; then it or its tag occurs again."""
    others = [row for row in rest if row != first]  # files that were put together have several
    if len(first) < 2 or not others:
        return False
    if not {cell.lower() for cell in first} & set(_WORD_NAMES) and not set(first) & set(names):
        return False
    again = any(cell == name for row in others for cell, name in zip(row, first, strict=False))
    return not again and not any(map(is_tag, first))


def tag_columns(head: Head) -> list[int]:
    """Columns that hold tags such as O and B-PER and nothing else; or, where there are none, O, B and I alone."""
    columns = enumerate(head.columns if head.width > 1 else ())
    typed, untyped = [], []
    for place, cells in columns:
        if (all(map(is_tag, cells)) and set(cells) != {"O"}) or usual_form(cells):
            typed.append(place)
        elif {"B", "O"} <= set(cells) <= _UNTYPED:
            untyped.append(place)
    return typed or untyped


def has_tags(head: Head, known: Collection[str]) -> bool:
    """Whether lines that may be raw texts are tagged words: most of the cells of a column are tags."""
    return len(head.rows) > 1 and bool(tag_columns(head) if not known else _mostly_tags(head, known))


def _mostly_tags(head: Head, known: Collection[str]) -> list[int]:
    """Columns most of whose cells are tags, `known` ones or their types; a stray one is an error of its row."""
    types, most = types_of(known) | {"O"}, len(head.rows) / 2
    found = []
    for place, cells in enumerate(head.columns if head.width > 1 else ()):
        counts = Counter(cells)
        kinds = [{tag for tag in counts if is_tag(tag)} if any(is_tag(tag) and tag != "O" for tag in counts) else set()]
        kinds += [set(known), types if "O" in counts or head.has_tabs else set()]
        kinds += [_UNTYPED if {"B", "O"} <= set(counts) else set()]
        written_otherwise = len(cells) > most and set(cells) != {"-"} and usual_form(cells, known)
        if written_otherwise or any(sum(counts[tag] for tag in kind) > most for kind in kinds):
            found.append(place)
    return found


def is_break(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith(_DOCUMENT_MARKS)


def cells_of(line: str) -> Cells:
    """By tabs where there are any, so that a word may hold a space, or be one (KLUE); other white space may be part of
    a word, too."""
    if "\t" in line.strip(" "):
        *cells, last = line.split("\t")
        return [cell.strip(" ") or cell for cell in cells] + [last.strip(" ")]
    return re.split(" +", line.strip(" "))
