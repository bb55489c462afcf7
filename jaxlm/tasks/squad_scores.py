"""SQuAD's scores: exact match and F1 of an answer's words, and where to draw the line to no answer.

As the official scripts count (evaluate-v1.1.py, Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250, and
evaluate-v2.0.py, 2018, https://arxiv.org/abs/1806.03822; both at https://rajpurkar.github.io/SQuAD-explorer).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def answer_words(text: str) -> list[str]:
    """The words of an answer that count: in lower case, without ASCII punctuation and without articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


def score(prediction: str, truths: Sequence[str], *, version_2: bool) -> tuple[int, float]:
    """Exact match (0 or 1) and F1 (0 to 1) of a prediction, each the best over the true answers.

    Args:
      prediction: the answer; "" for none.
      truths: the true answers; empty where there is none.
      version_2: by the rules of SQuAD 2.0, where a true answer without words counts as none, and two answers without
        words agree. By those of 1.1 they share no word, which is an F1 of 0.
    """
    given = answer_words(prediction)
    wanted = [answer_words(truth) for truth in truths]
    if version_2:
        wanted = [words for words in wanted if words] or [[]]
    exact = max((int(words == given) for words in wanted), default=0)
    return exact, max((_f1(given, words, version_2) for words in wanted), default=0.0)


def _f1(given: list[str], wanted: list[str], version_2: bool) -> float:
    if version_2 and not (given and wanted):
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def best_threshold(scores: np.ndarray, null_differences: np.ndarray, answerable: np.ndarray) -> tuple[float, float]:
    """The threshold above which there is said to be no answer, for the best mean score; and that score in per cent.

    As `find_best_thresh` of evaluate-v2.0.py: with the questions in the order of their differences, the first place
    that is best. That script returns the difference before it, and starts from 0 as if differences were probabilities;
    here it is halfway to the next difference, so that rounding does not move a question to the other side, and never
    between equal differences, which no threshold parts (the script's score then cannot be reached).

    Args:
      scores: `[questions]`, exact match or F1 of each question's best answer, were one given.
      null_differences: `[questions]`, by how much the score of none exceeds that answer's.
      answerable: `[questions]` bool.
    """
    order = np.argsort(null_differences, kind="stable")
    gains = np.where(answerable, scores, -1.0)[order]
    totals = (~answerable).sum() + np.concatenate([[0.0], np.cumsum(gains)])
    ranked = null_differences[order]
    totals[1:-1][ranked[:-1] == ranked[1:]] = -1.0
    best = int(np.argmax(totals))
    bounds = np.concatenate([[ranked[0] - 2.0], ranked, [ranked[-1] + 2.0]])
    return float(bounds[best : best + 2].mean()), float(100.0 * totals[best] / len(scores))
