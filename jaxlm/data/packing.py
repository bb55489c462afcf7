"""Packing: several short examples share a row, so that static shapes waste no padding.

First-fit decreasing (Johnson 1973): longest example first, each into the first row with room for it. It never needs
more than 11/9 of the fewest rows possible, and on real texts fills them to a few per cent. One function plans many
batches at once, so that a whole run is planned before it starts and its one static shape is known to fit every step.
"""

from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Where each example of each batch lies; arrays are `[batches, examples]`, -1 for an empty slot (length 0)."""

    row: np.ndarray
    start: np.ndarray  # offset of the first token within the row
    slot: np.ndarray  # 0, 1, ...: the example's place among those of its row

    @property
    def rows(self) -> int:
        """Rows that the fullest batch needs."""
        return int(self.row.max(initial=-1)) + 1

    @property
    def slots(self) -> int:
        """Examples in the most crowded row."""
        return int(self.slot.max(initial=-1)) + 1


def plan(lengths: np.ndarray, row_length: int, side_by_side: int = 1) -> Layout:
    """Packs each batch of `lengths [batches, examples]` into rows of `row_length` tokens; length 0 means no example.

    Args:
      side_by_side: so many consecutive examples lie one after the other in the same row.

    Raises:
      ValueError: an example, or those that are to lie side by side, are longer than a row.
    """
    if side_by_side > 1:
        return _plan_side_by_side(lengths, row_length, side_by_side)
    if lengths.max(initial=0) > row_length:
        raise ValueError(f"an example of {lengths.max()} tokens does not fit into a row of {row_length}")
    batches, count = lengths.shape
    order = np.argsort(-lengths, axis=1, kind="stable")
    room = np.full((batches, max(count, 1)), row_length, np.int32)
    filled = np.zeros_like(room)
    layout = Layout(*(np.full((batches, count), -1, np.int32) for _ in range(3)))
    batch = np.arange(batches)
    open_rows = 1
    for rank in range(count):
        example = order[:, rank]
        length = lengths[batch, example]
        # Rows past the first never-used one are as empty as it: only the rows in use and one more are searched.
        row = np.argmax(room[:, :open_rows] >= length[:, None], axis=1)
        here = length > 0
        at, where = batch[here], row[here]
        layout.row[at, example[here]] = where
        layout.start[at, example[here]] = row_length - room[at, where]
        layout.slot[at, example[here]] = filled[at, where]
        room[at, where] -= length[here]
        filled[at, where] += 1
        open_rows = min(max(open_rows, int(where.max(initial=-1)) + 2), room.shape[1])
    return layout


def _plan_side_by_side(lengths: np.ndarray, row_length: int, size: int) -> Layout:
    members = lengths.reshape(len(lengths), -1, size)
    whole = plan(members.sum(-1), row_length)
    starts = whole.start[..., None] + np.cumsum(members, -1) - members
    slots = whole.slot[..., None] * size + np.arange(size)
    parts = (np.broadcast_to(whole.row[..., None], members.shape), starts, slots)
    there = lengths > 0
    return Layout(*(np.where(there, part.reshape(lengths.shape), -1).astype(np.int32) for part in parts))
