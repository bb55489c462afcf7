"""The largest batch that fits into memory, found with few compilations."""

from collections.abc import Callable
from typing import NamedTuple


class Search(NamedTuple):
    """Rows that were compiled, and what became of them."""

    fits: int | None  # the most rows that fit; None: not even the fewest
    too_many: int | None  # the fewest that do not; None: not reached
    compilations: int


def largest_batch(
    needed: Callable[[int], int], capacity: int, unit: int, start: int, start_needed: int, *, most: int = 4
) -> Search:
    """Looks for the most rows whose training step needs at most `capacity` bytes of a device.

    What a step needs grows linearly with its rows but for the compiler's choices. So a line through two sizes says
    where the limit lies, and a compilation there says whether it is right.

    Args:
      needed: rows to bytes, by a compilation.
      unit: rows come in multiples of this (devices of the data axes x micro-batches).
      start, start_needed: a first size, already compiled.
      most: compilations at most.
    """
    tried = {start: start_needed}
    for _ in range(most):
        fits = max((rows for rows, size in tried.items() if size <= capacity), default=None)
        too_many = min((rows for rows, size in tried.items() if size > capacity), default=None)
        guess = _round(_guess(tried, capacity, start), unit)
        if fits is not None:
            guess = max(guess, _round(fits * 1.0625, unit, up=True))
        if too_many is not None:
            guess = min(guess, _round(too_many * 0.9375, unit))
        guess = max(guess, unit)
        if guess in tried or (fits is not None and too_many is not None and not fits < guess < too_many):
            break
        tried[guess] = needed(guess)
    fits = max((rows for rows, size in tried.items() if size <= capacity), default=None)
    too_many = min((rows for rows, size in tried.items() if size > capacity), default=None)
    return Search(fits, too_many, len(tried) - 1)


def _guess(tried: dict[int, int], capacity: int, start: int) -> float:
    """Where the line through the two sizes next to the limit meets it; of a single size, four times as many rows, or a
    quarter."""
    if len(tried) == 1:
        return start * 4 if tried[start] <= capacity else start / 4
    (rows, size), (other, other_size) = sorted(tried.items(), key=lambda item: abs(item[1] - capacity))[:2]
    slope = (other_size - size) / (other - rows)
    return rows + (capacity - size) / slope if slope > 0 else rows * 2


def _round(rows: float, unit: int, *, up: bool = False) -> int:
    """A multiple of `unit` with three significant binary digits or more, so that batches have round sizes."""
    units = rows / unit
    step = 2 ** max(int(units).bit_length() - 4, 0)
    return int(-(-units // step) if up else units // step) * step * unit
