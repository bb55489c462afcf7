"""The order in which examples are seen: a pure function of (seed, step), with no state to save or to skip through."""

from collections.abc import Sequence

import numpy as np

_MASK = np.uint64(0xFFFFFFFF)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3 on 32-bit words held in uint64."""
    x = (x ^ (x >> np.uint64(16))) * np.uint64(0x85EBCA6B) & _MASK
    x = (x ^ (x >> np.uint64(13))) * np.uint64(0xC2B2AE35) & _MASK
    return x ^ (x >> np.uint64(16))


def permute(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Where a keyed random permutation of `0 .. size - 1` sends `index`, without making the permutation.

    A balanced Feistel network of 8 rounds over the next even power of two, walked until it lands inside (Black and
    Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). `index` and `key` are integer arrays that broadcast.
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    index, key = np.broadcast_arrays(np.asarray(index, np.uint64), np.asarray(key, np.uint64))
    out = index.copy()
    todo = np.ones(out.shape, bool)
    while todo.any():
        left, right, keys = out[todo] >> half, out[todo] & low, key[todo]
        for round_number in range(8):
            word = _mix(right ^ _mix(keys + np.uint64(0x9E3779B9 * (round_number + 1)) & _MASK))
            left, right = right, left ^ (word & low)
        out[todo] = left << half | right
        todo &= out >= size
    return out.astype(np.int64)


_LEAST_SLOTS, _MOST_SLOTS = 1 << 10, 1 << 20  # rows in which a mixture's proportions are exact
_FINEST = 16  # so many of them the smallest share has, or its rounding would be felt


class MixedOrder:
    """The rows of one or several corpora, in proportion to their weights, each corpus permuted anew in each epoch.

    Of every 1024 rows (more, where a share is small) each corpus has the same number, its share rounded; which of them
    is drawn anew each time. Where a row lies is computed, never stored: a place in a run of any length over any number
    of rows is reached at once.

    Args:
      sizes: rows of each corpus.
      weights: of each corpus, of any scale.
      seed: of the permutations.

    Raises:
      ValueError: a share is less than a millionth.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        self.sizes, self.seed = list(sizes), seed
        shares = np.array(weights, np.float64) / sum(weights)
        self._slots = _LEAST_SLOTS
        while shares.min() * self._slots < _FINEST and self._slots < _MOST_SLOTS:
            self._slots *= 2
        shares *= self._slots
        if shares.min() < 1:
            raise ValueError(f"a share of {shares.min() / self._slots:.1g} is too small")
        counts = np.floor(shares).astype(np.int64)
        counts[np.argsort(counts - shares, kind="stable")[: self._slots - counts.sum()]] += 1
        self._ends = np.cumsum(counts)

    def rows(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The corpus, the row within it, and that corpus' epoch, at the given places (0, 1, ...) of the order."""
        key = _mix(np.asarray(self.seed, np.uint64) & _MASK)
        block, place = places // self._slots, places % self._slots
        slot = place
        if len(self.sizes) > 1:
            slot = permute(place, self._slots, _mix(key + block.astype(np.uint64) & _MASK))
        corpus = np.searchsorted(self._ends, slot, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        ordinal = block * (self._ends - starts)[corpus] + slot - starts[corpus]
        row, epoch = np.empty_like(ordinal), np.empty_like(ordinal)
        for number, size in enumerate(self.sizes):
            here = corpus == number
            epoch[here], within = np.divmod(ordinal[here], size)
            keys = _mix(_mix(key + np.uint64(number + 1) & _MASK) + epoch[here].astype(np.uint64) & _MASK)
            row[here] = permute(within, size, keys)
        return corpus, row, epoch


class StratifiedOrder:
    """Batches that all hold the same mix of lengths.

    The examples, sorted by length, are cut into blocks of as many examples as an epoch has batches; each block is
    permuted anew in each epoch and deals one example to each batch. Every example is seen once an epoch, in random
    company, yet every batch has nearly the same number of tokens: one static shape fits all with little padding, and
    the gradient's variance is no larger than that of free shuffling. Where the count does not divide, some batches
    hold one example less (never a last batch with a handful).

    Args:
      lengths: tokens of each example.
      batch_size: the most examples in a batch.
      seed: of the permutations; None deals in the order of the file's lengths (evaluation).
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int | None):
        self.batch_size = batch_size
        self.seed = seed
        self._sorted = np.argsort(-lengths, kind="stable")
        self.steps_per_epoch = -(-len(lengths) // batch_size)

    def examples(self, steps: np.ndarray) -> np.ndarray:
        """The example indices of the given steps: `[steps, batch_size]`, -1 where a batch holds one example less."""
        steps = steps[:, None]
        epoch, place = steps // self.steps_per_epoch, steps % self.steps_per_epoch
        block = np.arange(self.batch_size)[None]
        if self.seed is not None:
            key = _mix(_mix(np.asarray(self.seed, np.uint64) & _MASK) + epoch.astype(np.uint64) & _MASK)
            place = permute(place, self.steps_per_epoch, _mix(key + block.astype(np.uint64) & _MASK))
        rank = block * self.steps_per_epoch + place
        return np.where(rank < len(self._sorted), self._sorted[np.minimum(rank, len(self._sorted) - 1)], -1)
