"""Next-sentence prediction (Devlin et al. 2019, section 3.1): half of the pairs go on in another document."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_MOST_CLOSING = 2  # quotes and brackets behind a sentence


class Pair(NamedTuple):
    """A window as two texts; together they are no longer than the window."""

    first: np.ndarray
    second: np.ndarray
    random: bool  # the second does not follow the first


def pair(window: np.ndarray, others: Sequence[np.ndarray], draws: np.ndarray, ends_sentence: np.ndarray) -> Pair:
    """Cuts a window in two and, for half of the windows, takes another one's text for the second half.

    As in the paper a "sentence" is a span of text that may be several sentences long. It is cut behind a token that
    ends a sentence (and quotes or brackets that close there), where there is one. A text from elsewhere ends behind one
    where the window does: else its last token would tell it from one that follows.

    Args:
      window: token ids, `[tokens]`.
      others: windows of other documents to take the second text from; where there are none, or the window is a single
        token, the second text follows.
      draws: four uniform numbers in [0, 1), of this window.
      ends_sentence: `[vocabulary]`, 1 for tokens that end a sentence, 2 for those that may close behind one.
    """
    cut = _choose(_cuts(window, ends_sentence), draws[0])
    if not others or len(window) < 2 or draws[1] >= 0.5:
        return Pair(window[:cut], window[cut:], False)
    room, chosen = len(window) - cut, int(draws[2] * len(others))
    if len(window) in _ends(window, ends_sentence):
        for other in (*others[chosen:], *others[:chosen]):
            ends = _ends(other, ends_sentence)
            starts = np.append(ends, 0)
            # The last end that the room holds, from each start.
            last = np.append(0, ends)[np.searchsorted(ends, starts + room, side="right")]
            if (whole := last > starts).any():
                at = _choose(np.flatnonzero(whole), draws[3])
                return Pair(window[:cut], other[starts[at] : last[at]], True)
    other = others[chosen]
    starts = np.append(_cuts(other, ends_sentence), 0)
    starts = starts[starts + room <= len(other)]
    start = _choose(starts, draws[3]) if len(starts) else 0
    return Pair(window[:cut], other[start : start + room], True)


def _cuts(tokens: np.ndarray, ends_sentence: np.ndarray) -> np.ndarray:
    """Where a text can be cut so that both sides hold something: behind sentences, else anywhere, else at its end."""
    behind = _ends(tokens, ends_sentence)
    behind = behind[behind < len(tokens)]
    if len(behind):
        return behind
    return np.arange(1, len(tokens)) if len(tokens) > 1 else np.ones(1, np.int64)


def _ends(tokens: np.ndarray, ends_sentence: np.ndarray) -> np.ndarray:
    """Behind which tokens a sentence ends, counted from 1."""
    kinds = ends_sentence[tokens]
    ends = kinds == 1
    for _ in range(_MOST_CLOSING):
        closes = (kinds[1:] == 2) & ends[:-1]
        ends[1:] |= closes
        ends[:-1] &= ~closes
    return np.flatnonzero(ends) + 1


def _choose(values: np.ndarray, uniform: float) -> int:
    return int(values[int(uniform * len(values))])
