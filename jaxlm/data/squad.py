"""Questions about contexts: SQuAD's json, or rows of question, context and answers (jsonl, parquet, json, tfds, hf)."""

import dataclasses
import itertools
import logging
import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.config import DataSettings
from jaxlm.data import files, readers
from jaxlm.data.columns import rows_of_split
from jaxlm.data.files import Row
from jaxlm.data.schemes import SPLITS, is_scheme, scheme_rows
from jaxlm.data.sources import Problems, Table
from jaxlm.errors import NoSuchColumn, UserError

log = logging.getLogger("jaxlm")

_ID_NAMES = ("id", "qid", "guid")  # SQuAD's, MRQA's, KLUE's
_MRQA_ID_NAMES = ("qid", "id", "guid")  # its official script goes by the first

Answer = tuple[str, int]
"""A text, and the character of the context at which it starts."""


@dataclasses.dataclass(frozen=True)
class QuestionTable(Table):
    """Questions (`texts`) about contexts (`pairs`); a context is kept character for character."""

    ids: list[str] = dataclasses.field(default_factory=list)
    answers: list[list[Answer]] | None = None  # by question; [] where the context holds none. None: not asked for
    accepted: list[list[str]] | None = None  # by question, the texts that count as right, as MRQA lists them apart

    @property
    def contexts(self) -> list[str]:
        return self.pairs or []

    @property
    def truths(self) -> list[list[str]]:
        """The texts of each question's right answers."""
        accepted = self.accepted or [[] for _ in self.answers or ()]
        return [texts or [text for text, _ in found] for texts, found in zip(accepted, self.answers or (), strict=True)]

    @property
    def impossible(self) -> list[bool] | None:
        """Which questions their contexts do not answer; None where answers were not asked for."""
        return None if self.answers is None else [not found for found in self.answers]


class _Item(NamedTuple):
    """A question as a file has it, or what is wrong with it."""

    place: str
    problem: str | None = None
    id: Any = None
    question: Any = None
    context: Any = None
    answers: Any = None
    impossible: Any = None
    accepted: Sequence[Any] = ()


class _Columns(NamedTuple):
    question: str
    context: str
    answers: str


def read_questions(spec: str, split: str, settings: DataSettings, *, labelled: bool = True) -> QuestionTable:
    """Reads the data that a setting names.

    SQuAD's json (v1.1 and v2.0: articles of paragraphs of questions, https://arxiv.org/abs/1806.03822), or rows with
    `question`, `context`, `answers` (`{"text": [...], "answer_start": [...]}`, a list of such pairs, or flat columns
    `answer` and `answer_start`) and, where there is one, `id`; or, as MRQA has them, rows of a context and its `qas`.
    A question without an answer has an empty list, or `is_impossible`.

    Args:
      spec: a path (.json, .jsonl or .parquet; also .gz, .xz), `tfds:NAME[:SPLIT]` or `hf:NAME[:SPLIT]`.
      split: "train", "dev" or "test": which part is meant where `spec` does not say.
      settings: `text`, `text_pair` and `label` choose the columns of rows; what to do with bad ones.
      labelled: whether the answers are wanted too.

    Raises:
      UserError: no such data, no such column, or (unless `settings.bad_rows` is "skip") a question that cannot be
        used, such as one with an answer that does not lie where its offset says.
    """
    return _table(spec, _items(spec, split, settings, labelled), settings, labelled)


def questions_of_texts(
    source: str, texts: Sequence[str | bytes], contexts: Sequence[str] | None, settings: DataSettings
) -> QuestionTable:
    """Questions that come from no file, each with its own context; their ids are 1, 2, ...

    Raises:
      UserError: there are no contexts, or a text is empty (unless `settings.bad_rows` is "skip").
    """
    if contexts is None:
        raise UserError(
            f"{source}: a question needs a context: pass --text QUESTION --text_pair CONTEXT, or --input FILE"
        )
    pairs = enumerate(zip(texts, contexts, strict=True), 1)
    items = (_Item(f"line {n}", id=n, question=question, context=context) for n, (question, context) in pairs)
    return _table(source, items, settings, labelled=False)


def _items(spec: str, split: str, settings: DataSettings, by_split: bool) -> Iterator[_Item]:
    if is_scheme(spec):
        return _items_of_rows(spec, scheme_rows(spec, split), settings)
    path = Path(spec)
    if (suffix := files.data_format(path)) == ".json":
        content = readers.read_json_or_lines(path)
        if isinstance(content, dict) and isinstance(articles := content.get("data"), list):
            if not any(isinstance(article, dict) and "question" in article for article in articles):
                return _items_of_articles(articles)
            content = articles  # as transformers' run_qa writes it: rows under "data"
        elif isinstance(content, dict) and content.keys().isdisjoint(itertools.chain(*SPLITS.values())):
            raise UserError(f'{path}: no SQuAD file: it has no list of articles under "data"')
        elif content is not readers.LINES and not isinstance(content, (list, dict)):
            raise UserError(f"{path}: neither a SQuAD file nor a list of rows")
        rows: Iterable[Row] = readers.rows_of_json(path, content, SPLITS[split])
    elif suffix in (".jsonl", ".parquet"):
        rows = readers.read_rows(path)
    else:
        raise UserError(f"{path}: questions and contexts come as .json (SQuAD's), .jsonl or .parquet, not as {suffix}")
    return _items_of_rows(spec, rows_of_split(spec, rows, split) if by_split else rows, settings)


def _items_of_articles(articles: list[Any]) -> Iterator[_Item]:
    for number, article in enumerate(articles, 1):
        place = f"article {number}"
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield _Item(place, "no list of paragraphs")
            continue
        for index, paragraph in enumerate(paragraphs, 1):
            within = f"{place}, paragraph {index}"
            yield from _items_of_paragraph(within, f"{number}.{index}", paragraph)


def _items_of_paragraph(place: str, number: str, paragraph: Any) -> Iterator[_Item]:
    """The questions of a paragraph; one without an id gets its number, as that of a row is its line."""
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    if not isinstance(questions, list):
        yield _Item(place, 'no list of questions ("qas")')
        return
    context = paragraph.get("context")
    for count, question in enumerate(questions, 1):
        if not isinstance(question, dict):
            yield _Item(f"{place}, question {count}", "no JSON object")
            continue
        answers = _given(question, "answers", context)
        yield _Item(
            f"{place}, question {_id(question, count)}", None, _id(question, f"{number}.{count}"),
            question.get("question"), context, answers, _truth(question.get("is_impossible")), _accepted(question),
        )  # fmt: skip


def _id(question: dict[str, Any], otherwise: Any) -> Any:
    names = _MRQA_ID_NAMES if "detected_answers" in question else _ID_NAMES
    return next((question[name] for name in names if question.get(name) not in (None, "")), otherwise)


def _given(values: dict[str, Any], name: str, context: Any) -> Any:
    """The answers to learn from: MRQA's `answers` do not say where they are, and pandas writes two flat columns."""
    if "detected_answers" in values and name == "answers":
        return _detected(values["detected_answers"], context)
    parts = [f"{name}.{part}" for part in ("text", "answer_start")]
    if name not in values and all(part in values for part in parts):
        return {"text": values[parts[0]], "answer_start": values[parts[1]]}
    return values.get(name)


def _accepted(values: dict[str, Any]) -> list[Any]:
    """What MRQA's official script compares an answer with, which need not occur in the context."""
    given = (_listed(values.get("answers")) or []) if "detected_answers" in values else []
    return [answer.get("text") if isinstance(answer, dict) else answer for answer in given]


def _detected(found: Any, context: Any) -> Any:
    """MRQA's answers (https://github.com/mrqa/MRQA-Shared-Task-2019): each with the first and the last character of all
    places where it occurs; on the hub lists of either. As SQuAD has them, or as given where they are something else."""
    try:
        context = _string(context)
        every = found["char_spans"] if isinstance(found, dict) else [answer["char_spans"] for answer in found]
        spans = [(operator.index(start), operator.index(end)) for of_answer in every for start, end in _ends(of_answer)]
        return [{"text": context[start : end + 1], "answer_start": start} for start, end in spans]
    except (KeyError, TypeError, ValueError):
        return found


def _ends(spans: Any) -> Iterable[Any]:
    """The first and the last character of each place."""
    if isinstance(spans, dict):
        return zip(spans["start"], spans["end"], strict=True)
    return [(span["start"], span["end"]) if isinstance(span, dict) else span for span in spans]


def _items_of_rows(source: str, rows: Iterable[Row], settings: DataSettings) -> Iterator[_Item]:
    columns = None
    for row in rows:
        if row.problem or not isinstance(row.values, dict):
            yield _Item(row.place, row.problem or "no JSON object")
            continue
        values = row.values
        if values.keys() == {"header"}:  # MRQA's first line, of what the set is
            continue
        if "qas" in values:
            yield from _items_of_paragraph(row.place, str(row.line), values)
            continue
        columns = columns or _columns(source, values, settings)
        answers = _given(values, columns.answers, values.get(columns.context))
        if answers is None and columns.answers not in values and "answer" in values:
            flat = values["answer"]  # None or "": there is none
            answers = [{"text": flat, "answer_start": values.get("answer_start")}] if flat else []
        yield _Item(
            row.place, None, _id(values, row.line), values.get(columns.question), values.get(columns.context), answers,
            _truth(values.get("is_impossible")), _accepted(values),
        )  # fmt: skip


def _columns(source: str, first: dict[str, Any], settings: DataSettings) -> _Columns:
    def name(setting: str, asked: str | None, usual: str) -> str:
        if (asked or usual) in first:
            return asked or usual
        wrong = f"--data.{setting} {asked}: no such column" if asked else f"which column is the {usual}?"
        kind = NoSuchColumn if asked else UserError
        raise kind(f"{source}: {wrong} Columns: {', '.join(first)} - choose with --data.{setting} NAME")

    answers = "answers" if settings.label is None else name("label", settings.label, "answers")
    return _Columns(name("text", settings.text, "question"), name("text_pair", settings.text_pair, "context"), answers)


def _table(source: str, items: Iterator[_Item], settings: DataSettings, labelled: bool) -> QuestionTable:
    problems = Problems(source, settings.bad_rows)
    contexts: list[str] = []
    answers: list[list[Answer]] = []
    accepted: list[list[str]] = []
    table = QuestionTable(
        source, [], contexts, None, [], skipped=problems.counts, answers=answers if labelled else None,
        accepted=accepted if labelled else None,
    )  # fmt: skip
    seen: set[str] = set()
    for item in items:
        try:
            if item.problem:
                raise ValueError(item.problem)
            question, context = _text(item.question, "question"), _text(item.context, "context")
            identity = str(_string(item.id))
            if identity in seen:
                raise ValueError("an id that occurred before", f" ({identity})")
            wanted = _answers(item, context) if labelled else []
            right = [_text(text, "answer") for text in item.accepted] if labelled else []
        except ValueError as error:
            problems.report(item, *error.args)
            continue
        seen.add(identity)
        table.texts.append(question)
        contexts.append(context)
        table.places.append(item.place)
        table.ids.append(identity)
        answers.append(wanted)
        accepted.append(right)
    if not len(table):
        raise UserError(f"{source}: no usable question ({problems.counts})" if problems.counts
                        else f"{source}: no questions")  # fmt: skip
    problems.tell("questions")
    return table


def _string(value: Any) -> Any:
    """Text of bytes, which tensorflow-datasets gives; anything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _text(value: Any, what: str) -> str:
    value = _string(value)
    if value is None:
        raise ValueError(f"no {what}")
    if not isinstance(value, str):
        raise ValueError(f"a {what} that is no string", f" ({value!r})")
    if not value.strip():
        raise ValueError(f"an empty {what}")
    return value


def _answers(item: _Item, context: str) -> list[Answer]:
    """The answers of a question, each of which lies where it says.

    Raises:
      ValueError: (problem, detail).
    """
    given = item.answers
    if isinstance(given, dict):  # columns: texts and starts
        texts, starts = _listed(given.get("text")), _listed(given.get("answer_start"))
        if texts is None or starts is None or len(texts) != len(starts):
            raise ValueError("answers without as many texts as starts")
        found: list[Any] | None = [{"text": t, "answer_start": start} for t, start in zip(texts, starts, strict=True)]
    else:
        found = _listed(given)
        if found is None and given is not None:
            raise ValueError("answers that are no list", f" ({given!r})")
    if not (item.impossible is None or isinstance(item.impossible, (bool, int))):
        raise ValueError("an is_impossible that is neither true nor false", f" ({item.impossible!r})")
    found = found and [answer for answer in found if not _is_none(answer, bool(item.impossible))]
    if item.impossible and found:
        raise ValueError("answers to a question that is_impossible")
    if (found is None and not item.impossible) or (item.impossible is False and not found):
        raise ValueError("no answers", "; a question that its context does not answer has is_impossible true")
    return [_answer(answer, context) for answer in found or []]


def _is_none(answer: Any, impossible: bool) -> bool:
    """Whether an answer says that there is none, as an empty text at -1."""
    return (
        isinstance(answer, dict)
        and answer.get("text") in ("", b"")
        and (impossible or _whole(answer.get("answer_start")) == -1)
    )


def _whole(value: Any) -> Any:
    """A whole number as pandas (47.0) and csv (47) leave it; anything else as it is."""
    try:
        return int(value) if isinstance(value, str) or float(value).is_integer() else value
    except (TypeError, ValueError, OverflowError):
        return value


def _truth(value: Any) -> Any:
    """Text that says true or false, as CAIL's files have it, taken at its word."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _listed(value: Any) -> list[Any] | None:
    """The items of a list or an array; None of anything else."""
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else None


def _answer(given: Any, context: str) -> Answer:
    if not isinstance(given, dict):
        raise ValueError("an answer that is no object of text and answer_start", f" ({given!r})")
    text = _text(given.get("text"), "answer")
    try:
        start = operator.index(_whole(given["answer_start"]))
    except (KeyError, TypeError):
        raise ValueError("an answer_start that is no whole number", f" ({given.get('answer_start')!r})") from None
    if start < 0 or not context.startswith(text, start):
        there = context[max(start, 0) :][: len(text)]
        found = context.find(text)
        where = "it does not occur in the context" if found < 0 else f"it occurs at {found}"
        raise ValueError("an answer that is not at its offset", f" ({text!r} at {start}: {there!r} is there; {where})")
    return text, start
