"""Files of tagged words: CoNLL columns, rows with lists of words and tags, directories of seq.in, seq.out and label."""

import itertools
import json
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.files import Row
from jaxlm.data.schemes import SPLITS, is_scheme, scheme_rows
from jaxlm.data.sources import TEXT_NAMES
from jaxlm.data.tags import is_tag
from jaxlm.data.words import Sentence, WordTable, word_table
from jaxlm.errors import NoSuchColumn, UserError

log = logging.getLogger("jaxlm")

_HEAD = 500  # lines by which a file's columns are told apart
_WORD_NAMES = ("tokens", "words")
_TAG_NAMES = ("ner_tags", "ner", "tags", "slots", "slot_tags", "labels")
_INTENT_NAMES = ("intent", "label", "class", "category")
_ROW_FORMATS = (".jsonl", ".json", ".parquet")
_PLAIN_FORMATS = (".txt", ".csv", ".tsv")
_DIRECTORY = ("seq.in", "seq.out", "label")


def read_words(
    spec: str, split: str, settings: DataSettings, *, tags: bool, intents: bool, known_tags: Collection[str] = ()
) -> WordTable:
    """Reads the sentences that a setting names.

    Args:
      spec: a file (rows where it ends in .jsonl, .json or .parquet, else CoNLL columns), a directory with `seq.in`,
        `seq.out` and `label` in it or in its folder for the split, `tfds:NAME[:SPLIT]` or `hf:NAME[:SPLIT]`. Where
        neither tags nor intents are wanted, txt is a raw text a line, and csv and tsv have a column of raw texts.
      split: "train", "dev" or "test": which part is meant where `spec` does not say.
      settings: columns, and what to do with bad sentences.
      known_tags: of the model; they tell a file of tagged words from one of raw texts.

    Raises:
      UserError: no such data, no such column, or (unless `settings.bad_rows` is "skip") a sentence that cannot be read.
    """
    path = Path(spec)
    if is_scheme(spec):
        sentences = _rows(spec, scheme_rows(spec, split), settings, tags=tags, intents=intents)
    elif path.is_dir():
        sentences = _directory(path, split, tags=tags, intents=intents)
    elif not path.exists() and ":" in spec:
        raise UserError(f"{spec}: no such file, and no kind of data: tfds:NAME and hf:NAME are")
    elif (suffix := _suffix(path)) in _ROW_FORMATS or (
        suffix in _PLAIN_FORMATS and not (tags or intents) and not _tag_columns(path, known_tags)
    ):
        rows = files.read_rows(path, SPLITS[split])
        sentences = _rows(spec, rows, settings, tags=tags, intents=intents)
    elif path.name == "seq.in" and not (tags or intents):
        sentences = _lists_of_words(path)
    elif intents:
        raise UserError(
            f"{spec}: a CoNLL file has no place for intents; a directory of seq.in, seq.out and label is meant, or "
            "jsonl or parquet with columns tokens, tags and intent"
        )
    else:
        sentences = _columns(path, settings, tags=tags)
    return word_table(spec, sentences, settings.bad_rows, tags=tags, intents=intents)


def is_word_directory(path: Path) -> bool:
    """Whether a directory holds `seq.in`, or folders of splits that do."""
    return any((folder / "seq.in").is_file() for folder in (path, *_folders(path)))


def _folders(path: Path) -> list[Path]:
    return [path / name for names in SPLITS.values() for name in names if (path / name).is_dir()]


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".xz")]
    return suffixes[-1] if suffixes else ""


def _stray(row: Row, tags: list[str], where: str = "") -> tuple[Row, str] | None:
    """The first tag that marks no entity; see `Sentence.stray`."""
    place = next((place for place, tag in enumerate(tags) if not is_tag(tag)), None)
    return None if place is None else (row, f" ({tags[place]!r}), of word {place + 1}{where}")


class _Layout(NamedTuple):
    """What the columns of a CoNLL file hold."""

    words: int
    tags: int
    width: int
    has_tabs: bool
    is_marked: bool  # whether the column of tags holds those of entities
    is_universal: bool  # CoNLL-U: ten columns, of which the first numbers the words


def _columns(path: Path, settings: DataSettings, *, tags: bool) -> Iterator[Sentence]:
    """The sentences of a CoNLL file: a word a line, columns parted by tabs or spaces, sentences by blank lines."""
    layout = _layout(path, settings, tags=tags)
    for blank, group in itertools.groupby(files.lines(path), lambda item: item[1] is not None and _is_break(item[1])):
        if blank:
            continue
        sentence, problem = list(group), None
        stray: tuple[Row, str] | None = None
        cells: list[list[str]] = []
        for number, line in sentence:
            values = [] if line is None else _cells(line)
            if line and not cells and _is_comment(line, values, layout):
                continue
            if line is None:
                problem = Sentence(Row(number, []), problem="not UTF-8")
            elif not all(values):
                problem = Sentence(Row(number, []), problem="an empty column")
            elif len(values) != layout.width:
                detail = f" ({len(values)} instead of {layout.width})"
                problem = Sentence(Row(number, []), problem="wrong number of columns", detail=detail)
            elif layout.is_universal and not values[0].isdecimal():
                continue  # a range, of which the words follow; or a word that is not there
            elif tags and stray is None and not is_tag(values[layout.tags]):
                stray = Row(number, []), f" ({values[layout.tags]!r})"
            if problem is not None:
                break
            cells.append(values)
        if not cells and problem is None:  # comments alone
            continue
        first = Row(sentence[0][0], [])
        yield problem or Sentence(
            first, [values[layout.words] for values in cells],
            [values[layout.tags] for values in cells] if tags else None, stray=stray,
        )  # fmt: skip


def _layout(path: Path, settings: DataSettings, *, tags: bool) -> _Layout:
    """Raises:
    UserError: the columns that are asked for are not there, or it cannot be told which hold the tags.
    """
    blocks = _head(path)
    rows = [row for block in blocks for row in block]
    width = len(rows[0]) if rows else 1
    if rows and path.name.lower().split(".")[-1] == "csv" and "," in "".join(rows[0]):
        raise UserError(
            f"{path}: tagged words are read from columns parted by tabs or spaces, or from jsonl or parquet"
        )
    if tags and rows and width < 2:
        raise UserError(f"{path}: its first row has one column; words and tags are meant, parted by space or tab")
    words, place = (_position(path, name, getattr(settings, name)) for name in ("words", "tags"))
    tagged = _tag_columns(path)
    is_numbered = width > 2 and all(map(_counts, blocks))
    is_universal = is_numbered and width == 10
    if words is None:
        words = 1 if is_numbered else 0
    if place is None and tags and is_universal:
        place = 3  # the universal part of speech
    elif place is None and tags and is_numbered and len(tagged) > 1:
        found = ", ".join(map(str, tagged))
        raise UserError(f"{path}: columns {found} hold tags, as it seems; which are meant? --data.tags NUMBER")
    elif place is None and tags and is_numbered and tagged:
        place = tagged[0]
    elif place is None and tags and tagged == [words]:
        raise UserError(f"{path}: its first column holds the tags, as it seems: --data.tags 0 --data.words 1")
    place = -1 if place is None else place
    for name, column in (("words", words), ("tags", place if tags else 0)):
        if rows and not -width <= column < width:
            raise NoSuchColumn(f"{path}: --data.{name} {column}: there are {width} columns")
    if settings.words is not None and words % width in tagged:
        raise NoSuchColumn(f"{path}: --data.words {words}: that column holds tags, as it seems")
    if tags and width > 2:
        log.info(
            "%s: words in column %d and tags in column %d, of %d from 0", path, words % width, place % width, width
        )
    has_tabs = any("\t" in line for _, line in itertools.islice(files.lines(path), _HEAD) if line)
    return _Layout(words, place, width, has_tabs, bool(rows) and place % width in tagged, is_universal)


def _is_comment(line: str, cells: list[str], layout: _Layout) -> bool:
    """Whether a line ahead of a sentence is a comment: the word # has its columns, and a tag among them."""
    if line[:2] not in ("# ", "#\t"):
        return False
    no_row = len(cells) != layout.width or (layout.has_tabs and "\t" not in line)
    return no_row or (layout.is_marked and not is_tag(cells[layout.tags]))


def _counts(block: list[list[str]]) -> bool:
    """Whether the first column of a sentence numbers its words, as CoNLL-U does: with 1-2 for a range ahead of its
    words, and 2.1 for a word that is not there."""
    if not all(re.fullmatch(r"\d+([-.]\d+)?", row[0]) for row in block):
        return False
    numbers = [int(row[0]) for row in block if row[0].isdecimal()]
    return numbers == list(range(1, len(numbers) + 1))


def _head(path: Path) -> list[list[list[str]]]:
    """The cells of the lines at a CoNLL file's head, by sentence, without comments."""
    blocks: list[list[list[str]]] = [[]]
    for _, line in itertools.islice(files.lines(path), _HEAD):
        if line is not None and _is_break(line):
            blocks.append([])
        elif line and line[:2] not in ("# ", "#\t"):
            blocks[-1].append(_cells(line))
    return [block for block in blocks if block]


def _tag_columns(path: Path, known: Collection[str] = ()) -> list[int]:
    """Columns that hold tags such as O and B-PER, or `known` ones, and nothing else, at a CoNLL file's head."""
    rows = [row for block in _head(path) for row in block]
    if not rows or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return []
    columns = enumerate(zip(*rows, strict=True))
    return [
        place
        for place, cells in columns
        if (all(map(is_tag, cells)) and any(cell != "O" for cell in cells)) or (known and set(cells) <= set(known))
    ]


def _is_break(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("-DOCSTART-")


def _cells(line: str) -> list[str]:
    """By tabs where there are any, so that a word may hold a space; other white space may be part of a word, too."""
    if "\t" in line.strip(" "):
        return [cell.strip(" ") for cell in line.split("\t")]
    return re.split(" +", line.strip(" "))


def _position(path: Path, name: str, asked: str | None) -> int | None:
    try:
        return None if asked is None else int(asked)
    except ValueError:
        raise NoSuchColumn(
            f"{path}: --data.{name} {asked}: a CoNLL file's columns have numbers: 0, 1, ..., or -1 for the last"
        ) from None


def _rows(source: str, rows: Iterator[Row], settings: DataSettings, *, tags: bool, intents: bool) -> Iterator[Sentence]:
    """The sentences of rows with a list of words, a list of tags, and perhaps an intent; or, of neither, raw texts."""
    columns: dict[str, Any] | None = None
    keys: list[Any] | None = None  # of rows that are lists, as csv has them
    for row in rows:
        if row.problem:
            yield Sentence(row, problem=row.problem)
            continue
        if isinstance(row.values, dict):
            values = row.values
        else:
            if keys is None:
                keys = list(range(len(row.values)))
                if _is_header(row.values, settings):
                    keys = [str(name).strip() for name in row.values]
                    continue
            if len(row.values) != len(keys):
                detail = f" ({len(row.values)} instead of {len(keys)})"
                yield Sentence(row, problem="wrong number of columns", detail=detail)
                continue
            values = dict(zip(keys, row.values, strict=True))
        columns = columns or _find_columns(source, values, settings, tags=tags, intents=intents)
        absent = next((column for column in columns.values() if column not in values), None)
        if absent is not None:
            yield Sentence(row, problem="a column is missing", detail=f" ({absent})")
        elif "text" in columns:
            text = values[columns["text"]]
            if isinstance(text, str):
                yield Sentence(row, text=text)
            else:
                yield Sentence(row, problem="text that is no string", detail=f" ({text!r})")
        else:
            yield _sentence(row, values, columns)


def _is_header(values: list[Any], settings: DataSettings) -> bool:
    if settings.header != "auto" or len(values) < 2:
        return settings.header == "yes"
    cells = {str(value).strip().lower() for value in values}
    asked = settings.text is not None and not settings.text.isdigit() and settings.text.lower() in cells
    return asked or bool(cells & set(TEXT_NAMES))


def _find_columns(
    source: str, values: dict[Any, Any], settings: DataSettings, *, tags: bool, intents: bool
) -> dict[str, Any]:
    """The columns that are wanted, by what they hold: `words`, `tags` and `intent`, or `text`."""
    wanted: list[tuple[str, str, str | None, tuple[str, ...]]] = [("words", "words", settings.words, _WORD_NAMES)]
    if tags:
        wanted.append(("tags", "tags", settings.tags, _TAG_NAMES))
    if intents:
        wanted.append(("intent", "label", settings.label, _INTENT_NAMES))
    found: dict[str, Any] = {}
    for name, setting, asked, usual in wanted:
        column = (
            asked if asked is not None else next((usual_name for usual_name in usual if usual_name in values), None)
        )
        if column is not None and column in values and column not in found.values():
            found[name] = column
        elif name == "words" and asked is None and not (tags or intents):
            return {"text": _text_column(source, values, settings)}
        else:
            listing = ", ".join(map(str, values))
            kind = UserError if asked is None else NoSuchColumn
            raise kind(
                f"{source}: which column holds the {name}{'' if asked is None else f' (--data.{setting} {asked})'}? "
                f"Columns: {listing} - choose with --data.{setting} NAME"
            )
    return found


def _text_column(source: str, values: dict[Any, Any], settings: DataSettings) -> Any:
    names = {str(name): name for name in values}
    usual = [settings.text] if settings.text is not None else TEXT_NAMES
    column = next((names[name] for name in usual if name in names), None)
    if column is None and settings.text is None and len(names) == 1:
        column = next(iter(values))
    if column is None:
        kind = UserError if settings.text is None else NoSuchColumn
        raise kind(f"{source}: which column is the text? Columns: {', '.join(names)} - choose with --data.text NAME")
    return column


def _sentence(row: Row, values: dict[Any, Any], columns: dict[str, Any]) -> Sentence:
    words = values[columns["words"]]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return Sentence(row, problem="words that are no list of strings", detail=f" ({_short(words)})")
    tags = None
    if "tags" in columns:
        tags = values[columns["tags"]]
        if not isinstance(tags, list):
            return Sentence(row, problem="tags that are no list", detail=f" ({_short(tags)})")
        if len(tags) != len(words):
            detail = f" ({len(words)} words, {len(tags)} tags)"
            return Sentence(row, problem="not one tag a word", detail=detail)
        if any(isinstance(tag, int) for tag in tags):
            return Sentence(row, problem="tags that are numbers without names", detail=f" ({_short(tags)})")
        if bad := [tag for tag in tags if not isinstance(tag, str) or not tag.strip()]:
            return Sentence(row, problem="a tag that is no name", detail=f" ({_short(bad[0])})")
    intent = None
    if "intent" in columns:
        cell = values[columns["intent"]]
        if isinstance(cell, (list, dict)):
            return Sentence(row, problem="an intent that is no name", detail=f" ({_short(cell)})")
        intent = "" if cell is None else str(cell).strip()
    return Sentence(row, words, tags, intent, stray=_stray(row, tags or []))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _lists_of_words(path: Path) -> Iterator[Sentence]:
    for number, line in files.lines(path):
        row = Row(number, [])
        yield Sentence(row, problem="not UTF-8") if line is None else Sentence(row, _parted(line))


def _directory(path: Path, split: str, *, tags: bool, intents: bool) -> Iterator[Sentence]:
    """The sentences of a directory as Goo et al. 2018 laid ATIS and SNIPS out: `seq.in` has their words, `seq.out` the
    tags and `label` the intents, a line a sentence each."""
    folder = next((path / name for name in SPLITS[split] if (path / name / "seq.in").is_file()), path)
    wanted = [name for name, wants in zip(_DIRECTORY, (True, tags, intents), strict=True) if wants]
    for name in wanted:
        if not (folder / name).is_file():
            inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10])
            raise UserError(f"{folder} is a directory without {name} (it holds: {inside or 'nothing'})")
    for lines in itertools.zip_longest(*(files.lines(folder / name) for name in wanted)):
        number = next(line[0] for line in lines if line is not None)
        row = Row(number, [])
        texts = {name: "" if line is None else line[1] for name, line in zip(wanted, lines, strict=True)}
        if (broken := next((name for name, text in texts.items() if text is None), None)) is not None:
            yield Sentence(row, problem=f"not UTF-8 in {broken}")
            continue
        words, found, intent = (_parted(texts.get(name) or "") for name in _DIRECTORY)
        if not (words or found or intent):  # blank in every file, so they agree
            continue
        if ended := [name for name, line in zip(wanted, lines, strict=True) if line is None]:
            longer = ", ".join(name for name in wanted if name not in ended)
            raise UserError(
                f"{folder}, line {number}: {', '.join(ended)} ended before {longer}; their lines have to agree"
            )
        if tags and len(words) != len(found):
            detail = f" ({len(words)} words in seq.in, {len(found)} tags in seq.out)"
            yield Sentence(row, problem="not one tag a word", detail=detail)
        else:
            stray = _stray(row, found, " in seq.out") if tags else None
            yield Sentence(row, words, found if tags else None, " ".join(intent) if intents else None, stray=stray)


def _parted(line: str) -> list[str]:
    """By spaces and tabs; other white space may be part of a word."""
    return [word for word in re.split("[ \t]+", line) if word]
