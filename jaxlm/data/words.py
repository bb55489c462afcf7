"""Sentences as lists of words: what tasks that tag words read, and how raw text is parted into words."""

import dataclasses
import functools
import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxlm.data.files import Row
from jaxlm.data.sources import Problems, Table
from jaxlm.data.tags import as_iob2, is_tag, types_of, usual_form
from jaxlm.errors import UserError

log = logging.getLogger("jaxlm")

# Ideographs stand alone, as in google-research/bert tokenization.py, `_is_chinese_char`.
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


@dataclasses.dataclass(frozen=True)
class WordTable(Table):
    """Sentences in memory; word `w` of a sentence is `text[starts[w]:starts[w] + len(words[w])]`.

    `labels`, where a task has them, are of whole sentences (intents).
    """

    words: list[list[str]] = dataclasses.field(default_factory=list)
    starts: list[list[int]] = dataclasses.field(default_factory=list)
    tags: list[list[str]] | None = None  # of the words, in IOB2 unless they are flat
    flat: bool = False  # whether tags are of words alone, such as parts of speech, and mark no entities
    remarks: tuple[str, ...] = ()  # what a person should know of how the tags were read

    @property
    def known_labels(self) -> frozenset[str]:
        """The tags and intents that occur."""
        return super().known_labels.union(*self.tags or ())

    def unlabelled(self) -> "WordTable":
        return dataclasses.replace(self, labels=None, tags=None, flat=False, remarks=())


class Sentence(NamedTuple):
    """What a reader found: words with their tags and intent, or a raw text, or what is wrong."""

    row: Row  # where; its values do not matter
    words: list[str] | None = None  # None: `text` is to be parted
    tags: list[str] | None = None
    intent: str | None = None
    text: str = ""
    starts: list[int] | None = None  # of the words, where they are parts of `text`
    problem: str | None = None
    detail: str = ""
    stray: tuple[Row, str] | None = None  # where the first tag is that marks no entity, and which: a problem unless all
    # tags of the source are such


NO_TAG = "a tag that is neither O nor a type after B-, I- (or E-, S-, L-, U-, M-), amid tags that are"


def word_table(
    source: str,
    sentences: Iterable[Sentence],
    bad_rows: str,
    *,
    tags: bool,
    intents: bool,
    known_tags: Collection[str] = (),
) -> WordTable:
    """Checks sentences and puts them into a table.

    Args:
      bad_rows: "error" or "skip", as `DataSettings.bad_rows`.
      tags, intents: whether every sentence has to have them. Where no tag has a prefix, O is none or one of many, and
        there are no intents, tags are taken as they are (`WordTable.flat`); else each has to be one of an entity.
      known_tags: of the model or its training data.

    Raises:
      UserError: a bad sentence, unless `bad_rows` is "skip"; or none that is good.
    """
    problems = Problems(source, bad_rows)
    table = WordTable(source, [], None, [] if intents else None, [], skipped=problems.counts, tags=[] if tags else None)
    sentences = list(sentences)
    usual = usual_form(_tags_of(sentences), known_tags) if tags else {}
    if usual:
        sentences = _renamed(sentences, usual)
    sentences, read_as = _with_types(sentences, known_tags) if tags else (sentences, "")
    flat = tags and not intents and _are_flat(_tags_of(sentences), known_tags)
    for sentence in sentences:
        if sentence.problem is not None:
            problems.report(sentence.row, sentence.problem, sentence.detail)
            continue
        if tags and sentence.stray is not None and not flat:
            row, detail = sentence.stray
            problems.report(row, NO_TAG, detail)
            continue
        if flat and (said := _line_of_tags(sentence)):
            problems.report(sentence.row, "a line with the words and tags of a whole sentence", f" ({said!r})")
            continue
        if sentence.words is None:
            text, found = sentence.text, split_words(sentence.text)
            words, starts = [word for word, _ in found], [start for _, start in found]
        else:
            words = sentence.words
            text, starts = joined(words) if sentence.starts is None else (sentence.text, sentence.starts)
        if not words:
            problems.report(sentence.row, "a sentence without words")
        elif intents and not sentence.intent:
            problems.report(sentence.row, "no intent")
        elif tags and sentence.tags is None:
            problems.report(sentence.row, "no tags")
        else:
            table.texts.append(text)
            table.words.append(words)
            table.starts.append(starts)
            table.places.append(sentence.row.place)
            if table.labels is not None:
                table.labels.append(sentence.intent)
            if table.tags is not None:
                table.tags.append(sentence.tags or [])
    if not table.texts:
        raise UserError(f"{source}: no sentence could be read" if problems.counts else f"{source}: no sentences")
    problems.tell("sentences")
    if table.tags is None:
        return table
    if flat:
        kinds = len({tag for sentence in table.tags for tag in sentence})
        return dataclasses.replace(table, flat=True, remarks=(f"{kinds} tags without B- and I-, taken as they are",))
    in_iob2, remark = as_iob2(source, table.places, table.tags)
    written = tuple(f"{tag} and the like are read as {usual[tag]}" for tag in sorted(usual)[-1:])
    return dataclasses.replace(table, tags=in_iob2, remarks=(*written, read_as or remark))


def _tags_of(sentences: Iterable[Sentence]) -> Counter[str]:
    return Counter(tag for sentence in sentences for tag in sentence.tags or ())


def _are_flat(tags: Counter[str], known_tags: Collection[str]) -> bool:
    """Whether tags mark no entities: none has a prefix, and O, if it is there, is one among others, such as pronouns
    (https://aclanthology.org/P11-2008), not what most words have, nor beside known types of entities."""
    if any(is_tag(tag) and tag != "O" for tag in tags):
        return False
    if "O" not in tags:
        return True
    if types_of(known_tags):
        return False
    return max(tags.values()) > tags["O"] or {"O"} < set(tags) <= set(known_tags)


def _line_of_tags(sentence: Sentence) -> str | None:
    """A tag that is several, of as many words in one, as in ATIS' .iob: a sentence a line."""
    pairs = zip(sentence.words or (), sentence.tags or (), strict=False)
    return next((tag for word, tag in pairs if " " in tag and " " in word), None)


def _renamed(sentences: Iterable[Sentence], names: Mapping[str, str]) -> list[Sentence]:
    """The sentences with tags of entities in place of their own."""
    return [
        sentence._replace(tags=[names.get(tag, tag) for tag in sentence.tags or ()] or None, stray=None)
        for sentence in sentences
    ]


def _with_types(sentences: list[Sentence], known_tags: Collection[str]) -> tuple[list[Sentence], str]:
    """The sentences with tags of prefix and type where theirs are one of these alone, and a remark on it.

    B and I, or E and S, L and U, beside O are of one type, as in corpora of diseases or genes, which gets a name.
    Types beside an O that is more frequent than any, as in Few-NERD, are of entities: neighbours of one type are one.
    So are types, however frequent, that are all those of known tags.
    """
    every = _tags_of(sentences)
    types = {tag: count for tag, count in every.items() if tag != "O"}
    if {"B", "O"} <= set(every) <= {*"OBIESMLU"}:
        form, read_as = "{}-ENTITY", ""
    elif (
        types and every["O"] > max(types.values()) and all(tag[1:2] not in ("", "-") for tag in types)
    ) or set() < set(types) <= types_of(known_tags) - {"ENTITY"}:
        form, read_as = "I-{}", "tags are types without B- and I-: neighbours of one type are taken as one entity"
    else:
        return sentences, ""
    return _renamed(sentences, {tag: form.format(tag) for tag in types}), read_as


def raw_texts(texts: Sequence[str | bytes]) -> Iterator[Sentence]:
    """Texts that come from no file; bytes are UTF-8 lines, of which an empty last one does not count."""
    if texts and texts[-1] == b"":
        texts = texts[:-1]
    for number, text in enumerate(texts, 1):
        try:
            given = text.decode("utf-8").rstrip("\r") if isinstance(text, bytes) else text
        except UnicodeDecodeError:
            yield Sentence(Row(number, []), problem="not UTF-8")
        else:
            yield Sentence(Row(number, []), text=given)


def joined(words: Sequence[str]) -> tuple[str, list[int]]:
    """Words with a space between them, and where each starts."""
    starts, place = [], 0
    for word in words:
        starts.append(place)
        place += len(word) + 1
    return " ".join(words), starts


def split_words(text: str) -> list[tuple[str, int]]:
    """The words of a raw text and where each starts: `text[start:start + len(word)] == word`.

    White space parts words; punctuation, symbols and ideographs are words by themselves. A hyphen or a full stop
    between two letters or digits is none of these: it stays inside, as in the CoNLL files (Jean-Claude, U.S, 3.5).
    What combines with the character before it (accents, variation selectors, joiners) stays with it.
    """
    found: list[tuple[str, int]] = []
    start, runs = -1, False  # of the word at hand: where it started, and whether letters go on with it

    def close(end: int) -> None:
        if start >= 0:
            found.append((text[start:end], start))

    for place, character in enumerate(text):
        kind = _kind(character)
        if kind == "joiner":
            inside = runs and _kind(text[place - 1]) != "joiner" and _kind(text[place + 1 : place + 2]) == "letter"
            kind = "letter" if inside else "alone"
        if kind == "space":
            close(place)
            start, runs = -1, False
        elif kind == "alone" or start < 0 or (kind == "letter" and not runs):
            close(place)
            start, runs = place, kind != "alone"
    close(len(text))
    return found


@functools.lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    if not character:
        return "space"
    category = unicodedata.category(character)
    if character.isspace() or category in ("Cc", "Zs", "Zl", "Zp"):
        return "space"
    if category[0] == "M" or category == "Cf":
        return "mark"
    if character in "-.":
        return "joiner"
    if category[0] in "PS" or any(first <= ord(character) <= last for first, last in _IDEOGRAPHS):
        return "alone"
    return "letter"
