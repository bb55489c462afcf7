"""Next-sentence prediction (Devlin et al. 2019, section 3.1): half of the pairs go on in another document."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """A window as two texts; together they are no longer than the window."""

    first: np.ndarray
    second: np.ndarray
    random: bool  # the second does not follow the first


def pair(window: np.ndarray, others: Sequence[np.ndarray], draws: np.ndarray, ends_sentence: np.ndarray) -> Pair:
    """Cuts a window in two and, for half of the windows, takes another one's text for the second half.

    As in the paper a "sentence" is a span of text that may be several sentences long. It is cut behind a token that
    ends a sentence, where there is one.

    Args:
      window: token ids, `[tokens]`.
      others: windows of other documents to take the second text from; where there are none, or the window is a single
        token, the second text follows.
      draws: four uniform numbers in [0, 1), of this window.
      ends_sentence: `[vocabulary]` bool.
    """
    cut = _choose(_cuts(window, ends_sentence), draws[0])
    if not others or len(window) < 2 or draws[1] >= 0.5:
        return Pair(window[:cut], window[cut:], False)
    other = others[int(draws[2] * len(others))]
    room = len(window) - cut
    starts = np.append(_cuts(other, ends_sentence), 0)
    starts = starts[starts + room <= len(other)]
    start = _choose(starts, draws[3]) if len(starts) else 0
    return Pair(window[:cut], other[start : start + room], True)


def _cuts(tokens: np.ndarray, ends_sentence: np.ndarray) -> np.ndarray:
    """Where a text can be cut so that both sides hold something: behind sentences, else anywhere, else at its end."""
    behind = np.flatnonzero(ends_sentence[tokens[:-1]]) + 1
    if len(behind):
        return behind
    return np.arange(1, len(tokens)) if len(tokens) > 1 else np.ones(1, np.int64)


def _choose(values: np.ndarray, uniform: float) -> int:
    return int(values[int(uniform * len(values))])
