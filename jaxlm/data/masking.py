"""Masked-language-model targets (Devlin et al. 2019, section 3.1), a pure function of (seed, step, example, position).

Nothing depends on where an example lies, so that a packed batch is masked as the same examples unpacked are.
"""

import numpy as np


def _lowbias32(x: np.ndarray) -> np.ndarray:
    """The hash of `jaxlm.models.dropout`, in numpy."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _words(key: tuple[int, ...], *counters: np.ndarray) -> np.ndarray:
    """Random uint32 words numbered by a key and by counter arrays that broadcast."""
    word = np.zeros(1, np.uint32)
    for part in (*key, *counters):
        word = _lowbias32(word + np.asarray(part).astype(np.uint32) * np.uint32(0x9E3779B9) + np.uint32(1))
    return word


def _uniform(words: np.ndarray) -> np.ndarray:
    return words * (1.0 / 2**32)


def most_predictions(row_length: int, slots: int, rate: float) -> int:
    """How many tokens of a row `mask_tokens` can choose: each example's share is rounded up or down at random."""
    return min(row_length, int(np.ceil(rate * row_length)) + slots)


def mask_tokens(
    batch: dict[str, np.ndarray],
    *,
    seed: int,
    step: int,
    rate: float,
    predictions: int,
    vocab_size: int,
    special_ids: dict[str, int],
) -> dict[str, np.ndarray]:
    """Chooses tokens to predict and hides them.

    Of each example's `n` tokens (special ones never count), `rate * n` are chosen, rounded up or down at random so
    that the rate is exact on average. Of the chosen, 80 % become [MASK], 10 % a random token, 10 % stay.

    Args:
      batch: a packed batch, `[rows, length]`; not changed.
      predictions: the static number of places a row has for targets; `most_predictions` is always enough.

    Returns:
      The batch with `input_ids` masked, and `predict_positions`, `predict_labels` (int32) and `predict_weights`
      (float32), each `[rows, predictions]`; weight 0 fills up.
    """
    ids, segments = batch["input_ids"], batch["segment_ids"]
    rows, length = ids.shape
    key = (seed, step)
    eligible = (segments > 0) & ~np.isin(ids, list(special_ids.values()))
    words = _words((*key, 0), batch["example_ids"], batch["positions"])
    # Within each example, tokens are ranked by their word; the lowest ranks are chosen.
    segments = np.where(eligible, segments, 0)
    order = np.argsort(segments.astype(np.uint64) << np.uint64(32) | words, axis=1)
    slots = int(segments.max(initial=0)) + 1
    counts = np.stack([(segments == slot).sum(1) for slot in range(slots)], axis=1)
    firsts = np.cumsum(counts, axis=1) - counts
    row = np.arange(rows)[:, None]
    ranked_segments = segments[row, order]
    ranks = np.empty_like(order)
    ranks[row, order] = np.arange(length)[None] - firsts[row, ranked_segments]
    examples_of_slots = np.zeros((rows, slots), np.int64)
    examples_of_slots[np.broadcast_to(row, segments.shape), segments] = batch["example_ids"]
    quota = np.floor(rate * counts + _uniform(_words((*key, 1), examples_of_slots))).astype(int)
    chosen = eligible & (ranks < quota[row, segments])
    if chosen.sum(1).max(initial=0) > predictions:
        raise ValueError(f"{chosen.sum(1).max()} tokens of a row are to be predicted; there is room for {predictions}")
    fate = _uniform(_words((*key, 2), batch["example_ids"], batch["positions"]))
    ordinary = np.setdiff1d(np.arange(vocab_size, dtype=np.int32), list(special_ids.values()))
    random = ordinary[_words((*key, 3), batch["example_ids"], batch["positions"]) % np.uint32(len(ordinary))]
    hidden = np.where(fate < 0.8, special_ids["mask"], np.where(fate < 0.9, random, ids))
    positions = np.argsort(~chosen, axis=1, kind="stable")[:, :predictions].astype(np.int32)
    weights = np.take_along_axis(chosen, positions, 1).astype(np.float32)
    return batch | {
        "input_ids": np.where(chosen, hidden, ids).astype(np.int32),
        "predict_positions": positions,
        "predict_labels": np.where(weights > 0, np.take_along_axis(ids, positions, 1), 0).astype(np.int32),
        "predict_weights": weights,
    }
