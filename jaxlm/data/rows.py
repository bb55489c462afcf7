"""Packed rows as records: windows of documents, first-fit, in a form that is read back without a thought.

A record holds a row: the number of its windows (uint16), a `WINDOW` for each, and their tokens one after the other,
without special tokens. [CLS] and [SEP] are added when a row is read, so that the same rows serve with and without
next-sentence prediction; `SPECIALS` places a window are kept free for them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WINDOW = np.dtype([("document", "<u4"), ("piece", "<u4"), ("window", "<u4"), ("length", "<u2")])


class Windows(NamedTuple):
    """Windows that are not in rows yet, one after the other."""

    about: np.ndarray  # [windows] WINDOW
    tokens: np.ndarray  # [sum of lengths]

    @classmethod
    def join(cls, parts: Sequence["Windows"]) -> "Windows":
        return cls(np.concatenate([part.about for part in parts]), np.concatenate([part.tokens for part in parts]))


def specials(next_sentence: bool) -> int:
    """Special tokens of a window: [CLS] A [SEP], or [CLS] A [SEP] B [SEP]."""
    return 3 if next_sentence else 2


def cut(lengths: np.ndarray, room: int, documents: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts sections of text into windows: full ones of `room` tokens, and what is left.

    Args:
      lengths: tokens of each section, `[sections]`.
      documents, pieces: the document, and its piece, that each section is of. The sections of a piece follow one
        another, and its windows are numbered through them.

    Returns:
      The windows, `[windows] WINDOW`, and the section of each.
    """
    counts = -(-lengths // room)
    section = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(section)) - np.repeat(np.cumsum(counts) - counts, counts)
    new_piece = np.ones(len(section), bool)
    new_piece[1:] = (np.diff(documents[section]) != 0) | (np.diff(pieces[section]) != 0)
    starts = np.flatnonzero(new_piece)
    about = np.zeros(len(section), WINDOW)
    about["document"], about["piece"] = documents[section], pieces[section]
    about["window"] = np.arange(len(section)) - np.repeat(starts, np.diff([*starts, len(section)]))
    about["length"] = np.minimum(lengths[section] - within * room, room)
    return about, section


def fit(lengths: np.ndarray, row_length: int) -> np.ndarray:
    """The row of each window, by best-fit decreasing: `[windows]` int, rows numbered from 0.

    The longest window first, each into the row with the least room that still holds it (Johnson 1973: like first-fit
    decreasing, never more than 11/9 of the fewest rows possible). Rows are found by a bit set of the rooms there are:
    a microsecond a window, however many rows are open.
    """
    rows_of = np.zeros(len(lengths), np.int64)
    by_room: list[list[int]] = [[] for _ in range(row_length + 1)]
    rooms = rows = 0  # bit r of `rooms`: some row has room for exactly r more tokens
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    for window, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            row, room, rows = rows, row_length, rows + 1
        rows_of[window] = row
        if left := room - length:
            by_room[left].append(row)
            rooms |= 1 << left
    return rows_of


def pack(windows: Windows, row_length: int, special: int, least: float = 0.0) -> tuple[list[bytes], int, Windows]:
    """Packs windows into rows.

    Args:
      row_length: tokens of a row, `special` tokens of each window included.
      least: rows that are filled less than this are not made; their windows are handed back.

    Returns:
      The records, the most windows in one of them, and the windows that are left over.
    """
    about, tokens = windows
    sizes = about["length"].astype(np.int64) + special
    rows_of = fit(sizes, row_length)
    filled = np.bincount(rows_of, weights=sizes) >= least * row_length
    made = filled[rows_of] if len(rows_of) else np.zeros(0, bool)
    ends = np.cumsum(about["length"], dtype=np.int64)
    order = np.argsort(rows_of, kind="stable")  # windows of a row stay in the order of the text
    order = order[made[order]]
    records, most = [], 0
    for row in np.split(order, np.flatnonzero(np.diff(rows_of[order])) + 1) if len(order) else []:
        head = about[row]
        body = [tokens[ends[w] - about["length"][w] : ends[w]].tobytes() for w in row]
        records.append(b"".join([np.uint16(len(row)).tobytes(), head.tobytes(), *body]))
        most = max(most, len(row))
    left = ~made
    return records, most, Windows(about[left], tokens[np.repeat(left, about["length"])])


def parse(record: bytes, dtype: np.dtype) -> Windows:
    """A record's windows."""
    count = int.from_bytes(record[:2], "little")
    head = 2 + count * WINDOW.itemsize
    return Windows(np.frombuffer(record[2:head], WINDOW), np.frombuffer(record[head:], dtype))
