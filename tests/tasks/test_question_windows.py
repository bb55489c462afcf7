"""Windows are transformers', cover every token, and lead back to the text as it was written."""

import random
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from jaxlm.config import AnswerSettings
from jaxlm.data.squad import QuestionTable
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.tasks.question_windows import Tokenized, answer_tokens, make_windows, targets, window_bounds

from ..conftest import make_sentences


def table_of(questions: list[str], contexts: list[str]) -> QuestionTable:
    places = [f"line {n}" for n in range(1, len(questions) + 1)]
    return QuestionTable("file", questions, contexts, None, places, ids=places)


@pytest.mark.parametrize(
    ("tokens", "room", "stride"), [(10, 10, 3), (11, 10, 3), (100, 10, 3), (100, 7, 20), (0, 5, 2)]
)
def test_windows_cover_every_context_token_and_start_a_stride_apart(tokens: int, room: int, stride: int) -> None:
    bounds = window_bounds(tokens, room, stride)
    assert {token for first, size in bounds for token in range(first, first + size)} == set(range(tokens))
    assert all(size == room for _, size in bounds[:-1])
    starts = [first for first, _ in bounds]
    assert set(np.diff(starts)) <= {min(stride, room)}
    assert len(bounds) == 1 or sum(bounds[-2]) < tokens


@pytest.mark.parametrize("stride", [3, 12])
def test_windows_are_those_of_transformers_that_share_what_the_stride_leaves(tiny_model: Path, stride: int) -> None:
    sentences = [text for text, _ in make_sentences(40, 7)]
    questions, contexts = sentences[:8], [" ".join(sentences[4 * n : 4 * n + 4]) for n in range(8)]
    tokenizer, reference = TextTokenizer.load(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    table = table_of(questions, contexts)
    found = Tokenized.of(table, tokenizer, 64)
    windows, tokens = make_windows(table, found, tokenizer, 64, AnswerSettings(stride=stride))
    several = 0
    for row, (question, context) in enumerate(zip(questions, contexts, strict=True)):
        room = 64 - 3 - len(found.questions[row])
        expected = reference(
            question, context, truncation="only_second", max_length=64, stride=room - min(stride, room),
            return_overflowing_tokens=True,
        )  # fmt: skip
        own = np.flatnonzero(windows.question == row)
        several += len(own) > 1
        for window, ids, types in zip(own, expected["input_ids"], expected["token_type_ids"], strict=True):
            here = slice(tokens.offsets[window], tokens.offsets[window + 1])
            assert tokens.input_ids[here].tolist() == ids
            assert tokens.token_type_ids[here].tolist() == types
    assert several > 4


def test_a_long_question_is_cut_and_counted(tiny_model: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    table = table_of(["the film of the story", "the plot"], ["a warm film", "a warm film"])
    found = Tokenized.of(table, tokenizer, 3)
    assert ([len(ids) for ids in found.questions], found.cut) == ([3, 2], 1)
    assert found.contexts[0] is found.contexts[1]


def test_a_window_without_the_whole_answer_points_at_cls(tiny_model: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    context = " ".join(["film"] * 9 + ["good", "plot"] + ["film"] * 9)
    table = table_of(["the plot", "the plot"], [context, context])
    found = Tokenized.of(table, tokenizer, 64)
    windows, tokens = make_windows(table, found, tokenizer, 15, AnswerSettings(stride=5))
    answer = answer_tokens(found.contexts[0].spans, ("good plot", context.index("good")))
    assert answer == (9, 10)
    starts, ends = targets(windows, [answer, None])
    assert list(zip(windows.first[:3], windows.size[:3], strict=True)) == [(0, 10), (5, 10), (10, 10)]
    assert starts.tolist() == [0, 4 + 9 - 5, 0, 0, 0, 0]
    assert ends.tolist() == [0, 4 + 10 - 5, 0, 0, 0, 0]
    good, plot = (tokenizer.token_id(word) for word in ("good", "plot"))
    assert tokens.input_ids[tokens.offsets[1] + starts[1]] == good
    assert tokens.input_ids[tokens.offsets[1] + ends[1]] == plot


# Text whose characters the tokenizer splits, joins, lowers, strips or drops.
PIECES = [
    *(
        "Super Bowl",
        "北京市",
        "東京",
        "cafe\u0301",
        "Müller",
        "naïve",
        "İstanbul",
        "Straße",
        "हिन्दी",
        "ไทย",
        "עִבְרִית",
        "한국어",
    ),
    *(
        "👍🏽",
        "👩\u200d👩\u200d👧",
        "❤\ufe0f",
        "e\u0301\u0323x",
        "$1.2",
        "24\u201310",
        "it's",
        "①",
        "ﬁne",
        "zero\u200bwidth",
    ),
]


@pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
def test_answers_survive_the_round_trip_through_tokens_to_the_original_text(lowercase: bool) -> None:
    draw = random.Random(3)
    tokenizer = TextTokenizer.train([" ".join(PIECES)] * 3, 400, lowercase)
    contexts, answers = [], []
    for _ in range(60):
        pieces = draw.choices(PIECES, k=draw.randint(3, 12))
        first = draw.randrange(len(pieces))
        last = draw.randrange(first, len(pieces))
        spaces = [draw.choice([" ", "  ", "\n", "\u00a0", "\u3000", ", "]) for _ in pieces]
        context = "".join(piece + space for piece, space in zip(pieces, spaces, strict=True))
        start = sum(len(piece + space) for piece, space in zip(pieces[:first], spaces, strict=False))
        end = sum(len(piece + space) for piece, space in zip(pieces[:last], spaces, strict=False)) + len(pieces[last])
        contexts.append("\u2003" + context)
        answers.append((context[start:end], start + 1))
    table = table_of(["?"] * 60, contexts)
    found = Tokenized.of(table, tokenizer, 64)
    spans = [answer_tokens(context.spans, answer) for context, answer in zip(found.contexts, answers, strict=True)]
    windows, tokens = make_windows(table, found, tokenizer, 40, AnswerSettings(stride=10))
    starts, ends = targets(windows, spans)
    met = set()
    for window in np.flatnonzero(starts):
        row = windows.question[window]
        context_tokens = windows.spans[row][windows.first[window] :]
        left = context_tokens[starts[window] - windows.before[window], 0]
        right = context_tokens[ends[window] - windows.before[window], 1]
        assert contexts[row][left:right] == answers[row][0]
        met.add(row)
    assert len(met) >= 50  # the others are longer than a window
    assert (np.diff(tokens.offsets) <= 40).all()


def test_an_answer_that_begins_within_a_token_takes_the_whole_token() -> None:
    spans = np.array([[0, 4], [5, 11], [12, 15]])
    assert answer_tokens(spans, ("xx", 7)) == (1, 1)
    assert answer_tokens(spans, ("xxxx", 8)) == (1, 1)
    assert answer_tokens(spans, ("xxxxx", 10)) == (1, 2)
    assert answer_tokens(spans, (" ", 4)) is None
