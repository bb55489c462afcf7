"""Batches as a pure function of (seed, step): order, pack, and hand each process its slice of the rows."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxlm.data.digest import digest
from jaxlm.data.order import StratifiedOrder
from jaxlm.data.packing import Layout, plan
from jaxlm.errors import UserError

Batch = dict[str, np.ndarray]
_STEPS_TO_CHOOSE_BY = 64


@dataclasses.dataclass(frozen=True)
class Examples:
    """Tokenised examples in memory; example `i` owns tokens `offsets[i]:offsets[i + 1]`."""

    input_ids: np.ndarray  # [tokens] int32
    token_type_ids: np.ndarray  # [tokens] int8
    offsets: np.ndarray  # [examples + 1] int64
    targets: dict[str, np.ndarray]  # each [examples, ...]
    places: list[str]  # where each example came from, for messages
    source: str
    token_targets: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # each [tokens]
    group: int = 1  # so many consecutive examples (a query and its passage, say) always share a batch, and count as one
    records: Any = None  # what the task made them of: its table, where predictions and metrics need more than arrays
    record: np.ndarray | None = None  # [examples]: each one's row of `records`, where a row may be cut into several
    remarks: tuple[str, ...] = ()  # what a person should know of how they were made

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def groups(self) -> int:
        return len(self) // self.group

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets).astype(np.int32)

    def digest(self) -> str:
        """Of all that they hold; the same wherever the same was read."""
        named = [(name, values) for group in (self.targets, self.token_targets) for name, values in group.items()]
        parts = [self.input_ids, self.token_type_ids, self.offsets, self.group]
        return digest([*parts, *(part for pair in named for part in pair)])


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a run. `batches(step)` is the same whenever, wherever and however often it is asked for.

    Which examples a step has and where they lie is planned once, for the whole run: 16 bytes an example of a step.

    A batch holds, as `[rows, length]` int32: `input_ids`, `segment_ids`, `positions`, `token_type_ids`, `example_ids`;
    as `[rows, slots]`: `slot_examples` (int32, -1 for none), `batch_places` (int32, the example's number within the
    batch), `pool_positions` (int32, each example's first token), `example_weights` (float32, 0 for an empty slot) and
    the targets; and whatever `finish` adds. Targets of tokens are `[rows, length]`, 0 in padding.
    """

    examples: Examples
    planned: np.ndarray  # [steps, examples] int32: each step's examples, -1 for none
    placed: Layout  # where they lie, each [steps, examples]
    steps_per_epoch: int
    row_length: int
    rows: int
    slots: int
    finish: Callable[[Batch, int], Batch]
    first_row: int  # this process's slice of the rows
    last_row: int  # exclusive

    @property
    def steps(self) -> int:
        return len(self.planned)

    def indices(self, step: int) -> np.ndarray:
        """The step's examples, `[examples]`."""
        return self.planned[step][self.planned[step] >= 0]

    def layout(self, step: int) -> tuple[np.ndarray, Layout]:
        """The step's examples, `[examples]`, and where they lie."""
        there = self.planned[step] >= 0
        return self.planned[step][there], Layout(*(part[step][there] for part in self.placed))

    def collect(self, step: int, values: np.ndarray, of_tokens: bool, into: np.ndarray | None) -> np.ndarray:
        """Puts a step's values where they belong in the split.

        Args:
          values: `[rows, slots, ...]`, or of tokens `[rows, length, ...]`.
          into: what earlier steps gave, `[examples, ...]` or `[tokens, ...]`; None at first.
        """
        indices, layout = self.layout(step)
        if into is None:
            count = int(self.examples.offsets[-1]) if of_tokens else len(self.examples)
            into = np.zeros((count, *values.shape[2:]), values.dtype)
        if of_tokens:
            lengths = self.examples.lengths[indices]
            within = _within(lengths)
            there = np.repeat(self.examples.offsets[indices], lengths) + within
            into[there] = values[np.repeat(layout.row, lengths), np.repeat(layout.start, lengths) + within]
        else:
            into[indices] = values[layout.row, layout.slot]
        return into

    def __call__(self, step: int) -> Batch:
        indices, layout = self.layout(step)
        mine = (layout.row >= self.first_row) & (layout.row < self.last_row)
        indices, (row, start, slot) = indices[mine], (part[mine] for part in layout)
        batch_places = np.flatnonzero(mine)
        row, lengths = row - self.first_row, self.examples.lengths[indices]
        there = np.repeat(self.examples.offsets[indices], lengths) + _within(lengths)
        batch = lay_out(
            self.examples.input_ids[there], self.examples.token_type_ids[there], lengths, indices,
            Layout(row, start, slot), shape=(self.last_row - self.first_row, self.row_length, self.slots),
            token_targets={name: values[there] for name, values in self.examples.token_targets.items()},
        )  # fmt: skip
        batch["batch_places"] = np.zeros_like(batch["slot_examples"])
        batch["batch_places"][row, slot] = batch_places
        for name, values in self.examples.targets.items():
            target = np.zeros((*batch["slot_examples"].shape, *values.shape[1:]), values.dtype)
            target[row, slot] = values[indices]
            batch[name] = target
        return self.finish(batch, step)

    starts = (0,)  # steps at which the shapes change

    def epoch(self, step: int) -> float:
        """How often the data have been seen after so many steps."""
        return step / self.steps_per_epoch

    def tokens(self, step: int) -> float:
        """Real tokens of a step, over all processes."""
        return int(self.examples.lengths[self.indices(step)].sum())

    def count(self, step: int) -> int:
        """Examples of a step, over all processes; a group counts as one."""
        return len(self.indices(step)) // self.examples.group

    def filled_rows(self, step: int) -> int:
        """Rows with text in a step, over all processes."""
        return int(self.layout(step)[1].row.max()) + 1

    def digest(self) -> str:
        """Of the examples and of how they become batches, whichever slice of these is this process's."""
        return digest([self.examples.digest(), self.steps, self.row_length, self.rows, self.slots])

    def data_digest(self) -> str:
        """Of the examples alone."""
        return self.examples.digest()

    def describe_examples(self, step: int, most: int = 8) -> str:
        """Where a step's examples came from, for a message."""
        indices = self.indices(step)
        places = [self.examples.places[index] for index in indices[:most]]
        more = f" and {len(indices) - most} more" if len(indices) > most else ""
        return f"{self.examples.source}: {', '.join(places)}{more}"


def _members(groups: np.ndarray, size: int) -> np.ndarray:
    """The examples of groups of `size`: `[..., groups]` to `[..., groups * size]`; -1 stays -1."""
    if size == 1:
        return groups
    members = groups[..., None] * size + np.arange(size)
    return np.where(groups[..., None] >= 0, members, -1).reshape(*groups.shape[:-1], -1)


def _within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ... for the tokens of each example, one example after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def lay_out(
    input_ids: np.ndarray,
    token_type_ids: np.ndarray,
    lengths: np.ndarray,
    example_ids: np.ndarray,
    layout: Layout,
    *,
    shape: tuple[int, int, int],
    token_targets: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Batch:
    """Puts examples into rows.

    Args:
      input_ids, token_type_ids: of the examples, one after the other, `[tokens]`.
      lengths, example_ids: `[examples]`.
      layout: where each example goes, `[examples]`.
      shape: rows, their length, and the most examples in one.
      token_targets: more values of the tokens, each `[tokens]`.

    Returns:
      The arrays that `Batches` documents, but for the targets.
    """
    rows, length, slots = shape
    within = _within(lengths)
    here = np.repeat(layout.row * length + layout.start, lengths) + within

    def scatter(values: np.ndarray) -> np.ndarray:
        flat = np.zeros(rows * length, np.int32)
        flat[here] = values
        return flat.reshape(rows, length)

    slot_examples = np.full((rows, slots), -1, np.int32)
    pool_positions = np.zeros((rows, slots), np.int32)
    slot_examples[layout.row, layout.slot], pool_positions[layout.row, layout.slot] = example_ids, layout.start
    return {
        "input_ids": scatter(input_ids),
        "segment_ids": scatter(np.repeat(layout.slot + 1, lengths)),
        "positions": scatter(within),
        "token_type_ids": scatter(token_type_ids),
        "example_ids": scatter(np.repeat(example_ids, lengths)),
        "slot_examples": slot_examples,
        "pool_positions": pool_positions,
        "example_weights": (slot_examples >= 0).astype(np.float32),
    } | {name: scatter(values) for name, values in token_targets.items()}


def make_batches(
    examples: Examples,
    *,
    batch_size: int,
    steps: int | None,
    seed: int | None,
    row_length: int | None,
    hidden_size: int,
    row_multiple: int,
    length_multiple: int = 8,
    side_by_side: bool = False,
    finish: Callable[[Batch, int], Batch],
    process: int = 0,
    processes: int = 1,
) -> Batches:
    """Plans every step of a run, and chooses the one static shape that fits them all.

    Args:
      batch_size: examples a step; where examples come in groups, groups.
      steps: how many there will be; None for one epoch.
      seed: of the order; None for evaluation, where the order does not matter.
      row_length: tokens a row, or None for the cheapest: padding is weighed against attention, which grows with it.
      hidden_size: the model's width, for that choice.
      row_multiple: the number of rows is rounded up to a multiple of this (devices x micro-batches). Rows added so
        stay empty: the batch is otherwise the same on any mesh.
      length_multiple: candidates for `row_length` are multiples of this.
      side_by_side: the examples of a group share a row too, as micro-batches need that are made of whole rows.
      finish: what the task adds to a batch, given the batch and the step.
    """
    order = StratifiedOrder(examples.lengths.reshape(-1, examples.group).sum(1), batch_size, seed)
    steps = order.steps_per_epoch if steps is None else steps
    planned = _members(order.examples(np.arange(steps)), examples.group)
    lengths = np.where(planned >= 0, examples.lengths[planned], 0)
    together = examples.group if side_by_side else 1
    longest = int(lengths.reshape(len(lengths), -1, together).sum(-1).max())
    if row_length is None:
        shortest = -(-longest // length_multiple) * length_multiple
        candidates = list(range(shortest, max(2 * shortest, 128) + 1, length_multiple))
    else:
        candidates = [row_length]
    if row_length is not None and longest > row_length:
        raise UserError(
            f"--data.row_length is {row_length}; texts that belong together have up to {longest} tokens, and with "
            "train.micro_batches they share a row"
        )

    def cost(length: int) -> float:
        # A place costs 1 + 0.75 L / H: of a MiniLM (H 384) on a CPU 1.13 times as much at L 128 as at 64, as measured.
        return plan(some, length, together).rows * length * (hidden_size + 0.75 * length)

    # All steps have the same mix of lengths: to choose, a few are enough.
    some = lengths[:: -(-steps // _STEPS_TO_CHOOSE_BY)]
    best = min(candidates, key=cost) if len(candidates) > 1 else candidates[0]
    placed = plan(lengths, best, together)
    rows = -(-placed.rows // row_multiple) * row_multiple
    share = rows // processes
    return Batches(examples, planned.astype(np.int32), placed, order.steps_per_epoch, best, rows, placed.slots, finish,
                   process * share, (process + 1) * share)  # fmt: skip


def prefetch(
    batches: Callable[[int], Batch], start: int, steps: int, to_device: Callable[[Batch], Any]
) -> Iterator[Any]:
    """Batches of steps `start` to `steps` - 1, made in background threads a few steps ahead."""
    import grain

    numbers = grain.MapDataset.range(start, steps).map(batches)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    for batch in numbers.to_iter_dataset(options):
        yield to_device(batch)
