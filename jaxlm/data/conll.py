"""Tagged words in columns, as the shared tasks of CoNLL wrote them, and their successor CoNLL-U."""

from collections.abc import Collection, Iterator
from pathlib import Path

from jaxlm.config import DataSettings
from jaxlm.data import files
from jaxlm.data.conll_layout import Layout, cells_of, is_break, read_layout
from jaxlm.data.files import Row
from jaxlm.data.tags import is_tag
from jaxlm.data.words import Sentence


def read_columns(
    path: Path, settings: DataSettings, *, tags: bool, known_tags: Collection[str] = ()
) -> Iterator[Sentence]:
    """The sentences of a CoNLL file: a word a line, columns parted by tabs or spaces, sentences by blank lines."""
    layout = read_layout(path, settings, known_tags, tags=tags)
    for sentence in _parted(path, layout):
        problem: Sentence | None = None
        stray: tuple[Row, str] | None = None
        words: list[str] = []
        found: list[str] = []
        for number, line in sentence:
            values = [] if line is None else cells_of(line)
            if line and (values == layout.header or _is_comment(line, values, layout, ahead=not words)):
                continue
            if line is None:
                problem = Sentence(Row(number, []), problem="not UTF-8")
            elif not all(values) or (tags and len(values) == layout.width and values[layout.tags].isspace()):
                problem = Sentence(Row(number, []), problem="an empty column")
            elif len(values) != layout.width:
                detail = f" ({len(values)} instead of {layout.width})"
                problem = Sentence(Row(number, []), problem="wrong number of columns", detail=detail)
            elif layout.is_universal and not values[0].isdecimal():
                continue  # a range, of which the words follow; or a word that is not there
            elif not values[layout.words].startswith(layout.prefix):
                detail = f" ({values[layout.words]!r})"
                problem = Sentence(Row(number, []), problem=f"a word without {layout.prefix}", detail=detail)
            elif tags and stray is None and not is_tag(values[layout.tags]):
                stray = Row(number, []), f" ({values[layout.tags]!r})"
            if problem is not None:
                break
            words.append(values[layout.words].removeprefix(layout.prefix))
            found.append(values[layout.tags])
        if words or problem is not None:  # else comments alone
            first = Row(sentence[0][0], [])
            yield problem or Sentence(first, words, found if tags else None, stray=stray)


def _parted(path: Path, layout: Layout) -> Iterator[list[tuple[int, str | None]]]:
    """The lines of each sentence, with their numbers."""
    sentence: list[tuple[int, str | None]] = []
    last = None  # which sentence the word before belongs to
    for number, line in files.lines(path):
        ends = line is not None and is_break(line)
        if line and not ends and layout.sentences is not None:
            values = cells_of(line)
            if len(values) == layout.width and values[layout.sentences] != last:
                last, ends = values[layout.sentences], True
        if ends and sentence:
            yield sentence
            sentence = []
        if line is None or not is_break(line):
            sentence.append((number, line))
    if sentence:
        yield sentence


def _is_comment(line: str, cells: list[str], layout: Layout, *, ahead: bool) -> bool:
    """Whether a line is a comment: the word # has its columns, and a tag among them. Within a sentence, not ahead of
    it, only the lack of tabs where there are some makes a comment (HIPE-2022); other lines may be broken rows. KLUE has
    a sentence as a whole, after ##, ahead of its words."""
    if line.startswith("##"):
        return ahead and layout.is_marked and not is_tag(cells[-1])
    if line[:2] not in ("# ", "#\t"):
        return False
    is_row = len(cells) == layout.width and (not layout.is_marked or is_tag(cells[layout.tags]))
    if layout.has_tabs and "\t" not in line:
        return ahead or not is_row
    return ahead and not is_row
