"""Contexts in windows: [CLS] question [SEP] a part of the context [SEP], so many that every context token has its turn.

The windows are those of BERT's run_squad.py (https://github.com/google-research/bert): the first starts at the
context's first token and takes all that `max_length` leaves beside the question; the next one starts `stride` tokens
later; the last one reaches the context's end. Two windows in a row share the first one's context tokens less `stride`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.config import AnswerSettings
from jaxlm.data.squad import Answer, QuestionTable
from jaxlm.data.tokenizer import Spans, TextTokenizer

SPECIAL_TOKENS = 3  # [CLS], [SEP], [SEP]


class Windows(NamedTuple):
    """Where windows lie in their contexts, and contexts in their windows. Windows of a question follow each other."""

    table: QuestionTable
    spans: list[np.ndarray]  # by question `[context tokens, 2]`: each token's characters, as `tokenizer.Spans`
    question: np.ndarray  # [windows] int64: row of the table
    first: np.ndarray  # [windows] int64: the context token at which the window starts
    size: np.ndarray  # [windows] int64: context tokens in it
    before: np.ndarray  # [windows] int64: tokens in front of these: [CLS], the question, [SEP]


class Tokens(NamedTuple):
    """The windows' tokens, one window after the other."""

    input_ids: np.ndarray  # [tokens] int32
    token_type_ids: np.ndarray  # [tokens] int8: 0 up to the first [SEP], 1 from there on
    offsets: np.ndarray  # [windows + 1] int64


@dataclasses.dataclass(frozen=True)
class Tokenized:
    """A table's questions, cut to their length, and its contexts."""

    questions: list[np.ndarray]
    contexts: list[Spans]
    cut: int  # questions that were too long

    @classmethod
    def of(cls, table: QuestionTable, tokenizer: TextTokenizer, max_question_length: int) -> "Tokenized":
        """Tokenises a table; contexts that several questions share, once."""
        distinct = list(dict.fromkeys(table.contexts))
        by_text = dict(zip(distinct, tokenizer.tokenize_with_spans(distinct), strict=True))
        questions = [found.ids for found in tokenizer.tokenize_with_spans(table.texts)]
        cut = sum(len(ids) > max_question_length for ids in questions)
        contexts = [by_text[context] for context in table.contexts]
        return cls([ids[:max_question_length] for ids in questions], contexts, cut)


def window_bounds(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(first context token, count) of the windows of a context of `tokens` tokens, each of at most `room`.

    A stride larger than `room` counts as `room`: no token is left out.
    """
    bounds = [(0, min(tokens, room))]
    while sum(bounds[-1]) < tokens:
        first = bounds[-1][0] + min(room, stride)
        bounds.append((first, min(tokens - first, room)))
    return bounds


def make_windows(
    table: QuestionTable, found: Tokenized, tokenizer: TextTokenizer, max_length: int, settings: AnswerSettings
) -> tuple[Windows, Tokens]:
    """Cuts every context into windows of at most `max_length` tokens, [CLS], question and both [SEP] included."""
    cls, sep = ([tokenizer.special_ids[name]] for name in ("cls", "sep"))
    places: list[tuple[int, int, int, int]] = []
    ids: list[Sequence[int] | np.ndarray] = []
    for row, (question, context) in enumerate(zip(found.questions, found.contexts, strict=True)):
        room = max_length - SPECIAL_TOKENS - len(question)
        for first, count in window_bounds(len(context.ids), room, settings.stride):
            places.append((row, first, count, len(question) + 2))
            ids += [cls, question, sep, context.ids[first : first + count], sep]
    numbers, firsts, counts, before = np.array(places, np.int64).T
    offsets = np.zeros(len(places) + 1, np.int64)
    np.cumsum(before + counts + 1, out=offsets[1:])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    is_context = within >= np.repeat(before, np.diff(offsets))
    types = (is_context & tokenizer.tells_pairs_apart).astype(np.int8)
    spans = [context.spans for context in found.contexts]
    return (
        Windows(table, spans, numbers, firsts, counts, before),
        Tokens(np.concatenate(ids).astype(np.int32), types, offsets),
    )


def answer_tokens(spans: np.ndarray, answer: Answer) -> tuple[int, int] | None:
    """First and last context token of an answer: the fewest that cover it; None where no token lies in it."""
    text, start = answer
    first = int(np.searchsorted(spans[:, 1], start, side="right"))
    last = int(np.searchsorted(spans[:, 0], start + len(text), side="left")) - 1
    return (first, last) if first <= last else None


def targets(windows: Windows, answers: Sequence[tuple[int, int] | None]) -> tuple[np.ndarray, np.ndarray]:
    """The first and last token of the answer, `[windows]` int32 each, counted from the window's [CLS].

    Both are 0, which is [CLS], where the window does not hold the whole answer, and where there is none.

    Args:
      answers: by question, (first, last) context token.
    """
    spans = [(-1, -1) if answer is None else answer for answer in answers]
    first, last = np.array(spans, np.int64)[windows.question].T
    inside = (first >= windows.first) & (last < windows.first + windows.size)
    shift = windows.before - windows.first
    starts, ends = (np.where(inside, place + shift, 0).astype(np.int32) for place in (first, last))
    return starts, ends
