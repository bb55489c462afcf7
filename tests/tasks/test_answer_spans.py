import itertools

import numpy as np
import pytest

from jaxlm.config import AnswerSettings
from jaxlm.data.squad import QuestionTable
from jaxlm.tasks.answer_spans import Candidates, find_answers, widest_view
from jaxlm.tasks.question_windows import Windows, window_bounds

TOKENS, BEFORE = 23, 4


def problem(room: int, stride: int, seed: int = 0) -> tuple[Windows, np.ndarray, np.ndarray, np.ndarray]:
    """One question; its context has 23 words of one letter, all different. Windows, offsets, start and end logits."""
    bounds = np.array(window_bounds(TOKENS, room, stride))
    context = " ".join(chr(ord("a") + token) for token in range(TOKENS))
    spans = np.stack([np.arange(TOKENS) * 2, np.arange(TOKENS) * 2 + 1], axis=1)
    table = QuestionTable("file", ["?"], [context], None, ["line 1"], ids=["7"])
    zeros = np.zeros(len(bounds), np.int64)
    windows = Windows(table, [spans], zeros, bounds[:, 0], bounds[:, 1], zeros + BEFORE)
    offsets = np.concatenate([[0], np.cumsum(BEFORE + bounds[:, 1] + 1)])
    draw = np.random.default_rng(seed)
    return windows, offsets, *draw.normal(size=(2, offsets[-1])).astype(np.float32)


def answers(room: int, stride: int, seed: int = 0, **settings: int) -> Candidates:
    return next(find_answers(*problem(room, stride, seed), AnswerSettings(**settings)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_spans_are_those_of_trying_all(seed: int) -> None:
    windows, offsets, starts, ends = problem(10, 4, seed)
    score = {}
    for window, (first, size) in enumerate(zip(windows.first, windows.size, strict=True)):
        here = offsets[window] + BEFORE - first
        for start, end in itertools.product(range(first, first + size), repeat=2):
            views = [
                (min(start - f, f + s - 1 - start) + 0.01 * s, -w)
                for w, (f, s) in enumerate(zip(windows.first, windows.size, strict=True))
                if f <= start < f + s
            ]
            if -max(views)[1] == window and start <= end < start + 3:
                text = windows.table.contexts[0][2 * start : 2 * end + 1]
                score[text] = float(starts[here + start]) + float(ends[here + end])
    expected = sorted(score, key=lambda text: -score[text])[:6]
    found = answers(10, 4, seed, max_answer_length=3, n_best=6).answers
    assert [candidate.text for candidate in found] == expected
    assert [candidate.score for candidate in found] == pytest.approx([score[text] for text in expected])
    for candidate in found:
        assert windows.table.contexts[0][candidate.start : candidate.end] == candidate.text


def test_no_answer_is_as_likely_as_the_least_sure_window_says() -> None:
    _, offsets, starts, ends = problem(10, 4)
    found = answers(10, 4)
    assert found.null.score == pytest.approx(min(starts[offsets[:-1]] + ends[offsets[:-1]]))
    assert found.null_difference == pytest.approx(found.null.score - found.answers[0].score)
    assert found.chosen(None) is found.answers[0]
    assert found.chosen(found.null_difference) is found.answers[0]
    assert found.chosen(found.null_difference - 1e-9) is found.null


def test_the_probabilities_of_the_listed_answers_add_up_to_one_and_keep_their_order() -> None:
    found = answers(10, 4, n_best=5)
    for with_null, count in ((False, 5), (True, 6)):
        ranked = found.ranked(with_null)
        shares = [share for _, share in ranked]
        assert len(ranked) == count
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        scores = np.exp([candidate.score for candidate, _ in ranked])
        assert shares == pytest.approx(scores / scores.sum())


def test_each_token_is_read_in_the_window_that_shows_most_around_it() -> None:
    best = widest_view(np.array([0, 4, 8]), np.array([8, 8, 5]), 13)
    assert best.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_the_same_text_in_two_places_is_one_answer() -> None:
    windows, offsets, starts, ends = problem(30, 4)
    windows = windows._replace(table=QuestionTable("file", ["?"], ["a " * TOKENS], None, ["line 1"], ids=["7"]))
    found = next(find_answers(windows, offsets, starts, ends, AnswerSettings(max_answer_length=2)))
    assert sorted(candidate.text for candidate in found.answers) == ["a", "a a"]


@pytest.mark.parametrize("seed", range(8))
def test_as_many_answers_are_listed_as_there_are_and_of_equal_ones_the_earliest(seed: int) -> None:
    windows, offsets, starts, ends = problem(*((10, 4) if seed % 2 else (30, 4)))  # three windows, or one
    words = [*("aaabaaaacaaaaadaaaaaaea" if seed < 4 else "abcdefghijklmnopqrstuvw")]  # the same, or equal scores
    context = " ".join(words)
    windows = windows._replace(table=QuestionTable("file", ["?"], [context], None, ["line 1"], ids=["7"]))
    starts, ends = np.random.default_rng(seed).integers(0, 4, (2, len(starts))).astype(np.float32)
    settings = AnswerSettings(max_answer_length=3, n_best=8)
    best = widest_view(windows.first, windows.size, TOKENS)
    score: dict[str, tuple[float, int, int]] = {}
    for start, more in itertools.product(range(TOKENS), range(3)):
        window, end = best[start], start + more
        if end < windows.first[window] + windows.size[window]:
            here = offsets[window] + BEFORE - windows.first[window]
            key = -float(starts[here + start] + ends[here + end]), start, end
            text = context[2 * start : 2 * end + 1]
            score[text] = min(score.get(text, key), key)
    expected = sorted(score.items(), key=lambda item: item[1])[:8]
    found = next(find_answers(windows, offsets, starts, ends, settings)).answers
    assert [(candidate.text, candidate.start, -candidate.score) for candidate in found] == [
        (text, 2 * start, minus) for text, (minus, start, _) in expected
    ]


def test_a_context_without_tokens_has_no_answer() -> None:
    zero = np.zeros(1, np.int64)
    table = QuestionTable("file", ["?"], ["\u200b"], None, ["line 1"], ids=["7"])
    windows = Windows(table, [np.zeros((0, 2), np.int32)], zero, zero, zero, zero + 3)
    found = next(find_answers(windows, np.array([0, 4]), np.ones(4), np.ones(4), AnswerSettings()))
    assert found.chosen(None) == found.null == ("", None, None, 2.0)
    assert found.ranked(with_null=False) == [(found.null, 1.0)]
