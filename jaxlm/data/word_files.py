"""Files of tagged words: CoNLL columns, rows with lists of words and tags or a text and its entities, directories of
seq.in, seq.out and label."""

import itertools
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlm.config import DataSettings
from jaxlm.data import files, readers
from jaxlm.data.columns import TEXT_NAMES, rows_of_split
from jaxlm.data.conll import read_columns
from jaxlm.data.conll_layout import has_tags, is_number, read_head
from jaxlm.data.files import Row
from jaxlm.data.schemes import SPLITS, is_scheme, scheme_rows
from jaxlm.data.tags import is_tag
from jaxlm.data.words import Sentence, WordTable, word_table
from jaxlm.errors import NoSuchColumn, UserError, WhichColumn

log = logging.getLogger("jaxlm")

_WORD_NAMES = ("tokens", "words")
_TAG_NAMES = ("ner_tags", "ner", "tags", "slots", "slot_tags", "labels")
_INTENT_NAMES = ("intent", "label", "class", "category")
_ROW_FORMATS = (".jsonl", ".json", ".parquet")
_PLAIN_FORMATS = (".txt", ".csv", ".tsv")
_NUMBERED = '{"O": 0, "B-ORG": 1}'
_NUMBERED_NAMES = ("label.json", "label2id.json", "id2label.json")  # files with the names of numbered tags
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
      known_tags: of the model or its training data; they tell a file of tagged words from one of raw texts, and types
        of entities from other tags.

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
        suffix in _PLAIN_FORMATS and not (tags or intents) and not _holds_words(path, settings, known_tags)
    ):
        rows: Iterable[Row] = readers.read_rows(path, SPLITS[split])
        if tags or intents:
            rows = rows_of_split(spec, rows, split)
        sentences = _rows(spec, rows, settings, tags=tags, intents=intents)
    elif path.name == "seq.in" and not (tags or intents):
        sentences = _lists_of_words(path)
    elif intents:
        raise UserError(
            f"{spec}: a CoNLL file has no place for intents; a directory of seq.in, seq.out and label is meant, or "
            "jsonl or parquet with columns tokens, tags and intent"
        )
    else:
        sentences = read_columns(path, settings, tags=tags, known_tags=known_tags)
    return word_table(spec, sentences, settings.bad_rows, tags=tags, intents=intents, known_tags=known_tags)


def _holds_words(path: Path, settings: DataSettings, known_tags: Collection[str]) -> bool:
    """Whether a file that may hold raw texts has a word a line, beside its tag.

    Raises:
      WhichColumn: a txt file looks so, and nothing in it is known as a tag.
    """
    head = read_head(path)
    if has_tags(head, known_tags):
        return True
    if not head.has_a_word_a_line:
        return False
    if is_number(settings.words):
        return True
    if _suffix(path) == ".txt":
        raise WhichColumn(
            f"{path}: every line has {head.width} columns and blank lines part them, as in tagged words, but none "
            "holds tags that are known. If each line is a word: --data.words 0, or the number of its column; if each "
            "is a text, take the blank lines out"
        )
    return False


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


def _rows(source: str, rows: Iterable[Row], settings: DataSettings, *, tags: bool, intents: bool) -> Iterator[Sentence]:
    """The sentences of rows with a list of words, a list of tags, and perhaps an intent; or, of neither, raw texts."""
    columns: dict[str, Any] | None = None
    keys: list[Any] | None = None  # of rows that are lists, as csv has them
    names: dict[int, str] | None = None  # of tags that are numbers, once there are any
    for row in rows:
        if row.problem:
            yield Sentence(row, problem=row.problem)
            continue
        if isinstance(row.values, dict):
            values = row.values
        else:
            if keys is None:
                keys = list(range(len(row.values)))
                if _is_header(source, row.values, settings):
                    keys = [str(name).strip() for name in row.values]
                    continue
            if len(row.values) != len(keys):
                detail = f" ({len(row.values)} instead of {len(keys)})"
                yield Sentence(row, problem="wrong number of columns", detail=detail)
                continue
            values = dict(zip(keys, row.values, strict=True))
        if settings.words is None and _has_spans(values):
            yield _of_characters(row, values["text"], values["label"] if tags else {})
            continue
        columns = columns or _find_columns(source, values, settings, tags=tags, intents=intents)
        absent = next((column for column in columns.values() if column not in values), None)
        if absent is not None:
            yield Sentence(row, problem="a column is missing", detail=f" ({absent})")
        elif "text" in columns:
            text = values[columns["text"]]
            if isinstance(text, str) and not text.strip() and _suffix(Path(source)) == ".txt":
                hint = ", in a txt file of a text a line; if it has a word a line, name it .conll"
                yield Sentence(row, problem="a sentence without words", detail=hint)
            elif isinstance(text, str):
                yield Sentence(row, text=text)
            else:
                yield Sentence(row, problem="text that is no string", detail=f" ({text!r})")
        else:
            if names is None and "tags" in columns and _has_numbers(values[columns["tags"]]):
                names = _names_beside(source)
            yield _sentence(row, values, columns, names or {})


def _is_header(source: str, values: list[Any], settings: DataSettings) -> bool:
    if settings.header != "auto":
        return settings.header == "yes"
    if len(values) < 2 and not {".csv", ".tsv"} & set(Path(source).suffixes):  # any line of a txt file may be a text
        return False
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
    lowered = {str(name).lower(): name for name in values}
    for name, setting, asked, usual in wanted:
        column = asked if asked is not None else next((lowered[alike] for alike in usual if alike in lowered), None)
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
    lowered = {name.lower(): column for name, column in names.items()}
    column = names.get(settings.text or "")
    if column is None and settings.text is None:
        column = next((lowered[name] for name in TEXT_NAMES if name in lowered), None)
    if column is None and settings.text is None and len(names) == 1:
        column = next(iter(values))
    if column is None:
        kind = UserError if settings.text is None else NoSuchColumn
        raise kind(f"{source}: which column is the text? Columns: {', '.join(names)} - choose with --data.text NAME")
    return column


def _has_numbers(tags: Any) -> bool:
    return isinstance(tags, list) and any(isinstance(tag, int) for tag in tags)


def _names_beside(source: str) -> dict[int, str]:
    """The names of tags by their numbers, from a file beside the data's, as tner's data sets have one.

    Raises:
      UserError: that file holds something else.
    """
    paths = [Path(source).parent / name for name in _NUMBERED_NAMES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None or is_scheme(source):
        return {}
    content = files.read_json(path)
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    turned = [(number, name) if isinstance(number, int) else (name, number) for name, number in pairs]
    names = {int(number): name for number, name in turned if str(number).isdecimal() and isinstance(name, str)}
    if not names or len(names) < len(turned):
        raise UserError(f"{path}: the names of tags with their numbers are meant, as in {_NUMBERED}")
    log.info("%s: names of its tags from %s", source, path)
    return names


def _sentence(row: Row, values: dict[Any, Any], columns: dict[str, Any], names: Mapping[int, str]) -> Sentence:
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
        tags = [names.get(tag, tag) if isinstance(tag, int) else tag for tag in tags]
        if _has_numbers(tags):
            detail = f" ({_short(tags)}); write names, or put them beside the file: label.json, {_NUMBERED}"
            return Sentence(row, problem="tags that are numbers without names", detail=detail)
        if bad := [tag for tag in tags if not isinstance(tag, str) or not tag.strip()]:
            return Sentence(row, problem="a tag that is no name", detail=f" ({_short(bad[0])})")
    intent = None
    if "intent" in columns:
        cell = values[columns["intent"]]
        if isinstance(cell, (list, dict)):
            return Sentence(row, problem="an intent that is no name", detail=f" ({_short(cell)})")
        intent = "" if cell is None else str(cell).strip()
    return Sentence(row, words, tags, intent, stray=_stray(row, tags or []))


def _has_spans(values: dict[Any, Any]) -> bool:
    label = values.get("label")
    return (
        values.keys().isdisjoint(_WORD_NAMES)
        and isinstance(values.get("text"), str)
        and isinstance(label, dict)
        and all(isinstance(found, dict) for found in label.values())
    )


def _of_characters(row: Row, text: str, label: dict[str, dict[str, Any]]) -> Sentence:
    """A text with a word a character, white space aside, and entities as CLUENER has them (https://arxiv.org/abs/2001.04351):
    by type and wording, with the first and the last character: `{"name": {"叶老桂": [[9, 11]]}}`."""
    tags = ["O"] * len(text)
    for kind, found in label.items():
        for said, places in found.items():
            for place in places if isinstance(places, list) else [places]:
                where = f" ({kind} {said!r} at {_short(place)})"
                if not (isinstance(place, list) and len(place) == 2 and all(type(end) is int for end in place)):
                    return Sentence(row, problem="an entity without its first and last character", detail=where)
                inside = range(place[0], place[1] + 1)
                if not said or place[0] < 0 or text[inside.start : inside.stop] != said:
                    return Sentence(row, problem="an entity that is not at its place", detail=where)
                if any(tags[at] != "O" for at in inside):
                    return Sentence(row, problem="an entity that overlaps another", detail=where)
                tags[inside.start : inside.stop] = [f"{'I' if at > place[0] else 'B'}-{kind}" for at in inside]
    starts = [at for at, character in enumerate(text) if not character.isspace()]
    return Sentence(row, [text[at] for at in starts], [tags[at] for at in starts], text=text, starts=starts)


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
