"""The largest batch is found with few compilations, and is one that was compiled."""

import math
from collections.abc import Callable

import pytest

from jaxlm.training.largest_batch import largest_batch

CURVES: dict[str, Callable[[int], int]] = {
    "linear": lambda rows: 1000 + 7 * rows,
    "a step, where the compiler changes its mind": lambda rows: 1000 + 7 * rows + (900 if rows > 700 else 0),
    "bent": lambda rows: 1000 + round(0.9 * rows**1.2),
    "mostly constant": lambda rows: 9000 + rows // 4,
}


@pytest.mark.parametrize("start", [16, 256, 4096, 65536])
@pytest.mark.parametrize("curve", CURVES)
def test_the_largest_batch_is_within_an_eighth_of_the_limit(curve: str, start: int) -> None:
    size, capacity, unit = CURVES[curve], 10_000, 16
    asked: list[int] = []

    def needed(rows: int) -> int:
        asked.append(rows)
        return size(rows)

    found = largest_batch(needed, capacity, unit, start, size(start), most=6)
    best = max(rows for rows in range(unit, 10**5, unit) if size(rows) <= capacity)
    assert found.fits in [start, *asked]
    assert found.fits is not None
    assert size(found.fits) <= capacity
    assert found.fits % unit == 0
    assert found.fits >= math.floor(best * 0.875)
    assert found.compilations == len(asked) == len(set(asked)) <= 6


def test_where_nothing_fits_the_smallest_batch_was_tried() -> None:
    found = largest_batch(lambda rows: 20_000 + rows, 10_000, 16, 4096, 24_096)
    assert found.fits is None
    assert found.too_many == 16


def test_a_batch_is_not_split_into_parts_of_rows() -> None:
    found = largest_batch(lambda rows: 100 * rows, 100_000, 96, 96, 9600, most=8)
    assert found.fits == 960
