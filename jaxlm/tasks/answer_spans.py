"""From the scores of tokens in windows to answers in the context's own words."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxlm.config import AnswerSettings
from jaxlm.tasks.question_windows import Windows


class Candidate(NamedTuple):
    """An answer that the model might give."""

    text: str
    start: int | None  # characters of the context: the first, ...
    end: int | None  # ... and the one after the last; None where there is no answer
    score: float  # start logit + end logit


class Candidates(NamedTuple):
    """What a model says to one question."""

    answers: list[Candidate]  # best first, no text twice; none where the context has no tokens
    null: Candidate  # that there is none

    @property
    def best(self) -> Candidate:
        return self.answers[0] if self.answers else self.null

    @property
    def null_difference(self) -> float:
        """By how much the score of none exceeds the best answer's (SQuAD 2.0's null_score_diff)."""
        return self.null.score - self.best.score

    def chosen(self, null_threshold: float | None) -> Candidate:
        """The answer; None as threshold rules out that there is none."""
        return self.best if null_threshold is None or self.null_difference <= null_threshold else self.null

    def ranked(self, with_null: bool) -> list[tuple[Candidate, float]]:
        """All of them, best first, and the softmax of their scores, as BERT's run_squad.py calls their probability."""
        listed = [*self.answers, self.null] if with_null or not self.answers else self.answers
        listed = sorted(listed, key=lambda candidate: -candidate.score)
        scores = np.exp(np.array([candidate.score for candidate in listed]) - listed[0].score)
        return list(zip(listed, (scores / scores.sum()).tolist(), strict=True))


def find_answers(
    windows: Windows, offsets: np.ndarray, start_logits: np.ndarray, end_logits: np.ndarray, settings: AnswerSettings
) -> Iterator[Candidates]:
    """The answers to each question of a table, in order.

    As in BERT's run_squad.py: an answer starts in the window that shows most on both sides of its first token
    ("maximum context"), ends in the same one, and has at most `max_answer_length` tokens of the context; none is as
    likely as the window that is least sure of it says ([CLS] as both start and end). Every pair of a start and an end
    is looked at; run_squad.py looks at those of the `n_best` likeliest starts and ends.

    Args:
      offsets: `[windows + 1]`, where each window's tokens begin.
      start_logits, end_logits: `[tokens]`.
    """
    bounds = np.searchsorted(windows.question, np.arange(len(windows.table) + 1))
    for row, (one, end) in enumerate(itertools.pairwise(bounds.tolist())):
        spans, context = windows.spans[row], windows.table.contexts[row]
        best_window = widest_view(windows.first[one:end], windows.size[one:end], len(spans))
        nulls = start_logits[offsets[one:end]].astype(np.float64) + end_logits[offsets[one:end]]
        scored: list[tuple[np.ndarray, np.ndarray, int]] = []
        for window in range(one, end):
            first, count = int(windows.first[window]), int(windows.size[window])
            here = int(offsets[window] + windows.before[window])
            starts = start_logits[here : here + count].astype(np.float64)
            starts[best_window[first : first + count] != window - one] = -np.inf
            scored.append((starts, end_logits[here : here + count].astype(np.float64), first))
        answers = _best_answers(scored, spans, context, settings)
        yield Candidates(answers, Candidate("", None, None, float(nulls.min())))


def widest_view(first: np.ndarray, count: np.ndarray, tokens: int) -> np.ndarray:
    """Which of a context's windows shows most on both sides of each token, `[tokens]`.

    The smaller side counts, then the window's length (a hundredth of it), then the earlier window: run_squad.py's
    `_check_is_max_context`.
    """
    place = np.arange(tokens)[None]
    first, count = first[:, None], count[:, None]
    view = np.minimum(place - first, first + count - 1 - place) + 0.01 * count
    return np.where((place >= first) & (place < first + count), view, -np.inf).argmax(0)


def _best_answers(
    scored: list[tuple[np.ndarray, np.ndarray, int]], spans: np.ndarray, context: str, settings: AnswerSettings
) -> list[Candidate]:
    """The best `n_best` that differ in their text, of equal ones the earliest.

    Args:
      scored: of each window the scores of starts and of ends, and which token of the context they begin with.
      spans: `[tokens, 2]`, the characters of the context's tokens.
    """
    most = settings.n_best + 1
    while True:
        found: list[tuple[float, int, int]] = []
        left_out = -np.inf  # no pair that was left out scores more
        for starts, ends, first in scored:
            pairs = _best_pairs(starts, ends, first, settings.max_answer_length, most)
            if len(pairs) == most:
                left_out = max(left_out, min(pairs)[0])
            found += pairs
        answers: dict[str, Candidate] = {}
        for score, start, last in sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2])):
            left, right = int(spans[start, 0]), int(spans[last, 1])
            text = context[left:right]
            answers.setdefault(text, Candidate(text, left, right, score))
            if len(answers) == settings.n_best:
                break
        listed = list(answers.values())
        if left_out == -np.inf or (len(listed) == settings.n_best and listed[-1].score > left_out):
            return listed
        most *= 8  # the same words again and again, or equal scores


def _best_pairs(
    starts: np.ndarray, ends: np.ndarray, first: int, longest: int, most: int
) -> list[tuple[float, int, int]]:
    """The best (score, first token, last token) of a window whose context begins with token `first`; at most `most`
    of them, fewer where there are no others."""
    if not len(starts):
        return []
    longest = min(longest, len(starts))
    padded = np.concatenate([ends, np.full(longest - 1, -np.inf)])
    scores = (starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)).ravel()
    most = min(most, len(scores))
    best = np.argpartition(-scores, most - 1)[:most]
    pairs = zip(scores[best].tolist(), (first + best // longest).tolist(), (best % longest).tolist(), strict=True)
    return [(score, start, start + more) for score, start, more in pairs if score > -np.inf]
