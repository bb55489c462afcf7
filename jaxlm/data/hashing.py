"""Random numbers by counter: a pure function of a key and of what is numbered, in any order, on any machine."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What a random number of a step is for: part of its key, so that no two things go by the same number."""

    MASK_ORDER = 0
    MASK_ROUNDING = 1
    MASK_FATE = 2
    RANDOM_TOKEN = 3
    NEW_SPAN = 4
    PAIR = 5
    OTHER_ROW = 6


def _lowbias32(x: np.ndarray) -> np.ndarray:
    """The hash of `jaxlm.models.dropout`, in numpy."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def random_bits(key: tuple[int, ...], *counters: np.ndarray) -> np.ndarray:
    """Random uint32 numbered by a key and by counter arrays that broadcast."""
    bits = np.zeros(1, np.uint32)
    for part in (*key, *counters):
        bits = _lowbias32(bits + np.asarray(part).astype(np.uint32) * np.uint32(0x9E3779B9) + np.uint32(1))
    return bits


def uniform(bits: np.ndarray) -> np.ndarray:
    """As float64 in [0, 1)."""
    return bits * (1.0 / 2**32)
