"""Batches of prepared rows: which rows a step sees, which second sentences and which masks, from (seed, step) alone."""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from jaxlm.data.digest import digest
from jaxlm.data.hashing import Purpose, random_bits, uniform
from jaxlm.data.loader import Batch, lay_out
from jaxlm.data.next_sentence import Pair, pair
from jaxlm.data.order import MixedOrder
from jaxlm.data.packing import Layout
from jaxlm.data.prepared import PreparedRows

_ATTEMPTS = 8  # rows to look in for a text of another document: a long one fills many


@dataclasses.dataclass(frozen=True)
class Marks:
    """The tokens that a row is put together with."""

    cls: int
    sep: int
    ends_sentence: np.ndarray | None  # `jaxlm.data.next_sentence.pair`'s; None without next-sentence prediction


@dataclasses.dataclass(frozen=True)
class RowBatches:
    """Batches of prepared rows, of steps `first_step` to `first_step + steps` - 1; called as `loader.Batches` is.

    Of the rows of a batch, `batch_size` hold text; more, up to a multiple of the devices, are empty. With next-sentence
    prediction a batch has `follows [rows, slots]`: 0 where the second text follows the first, 1 where it does not.
    """

    corpora: Sequence[PreparedRows]
    order: MixedOrder | None  # None: every row once, in order
    batch_size: int
    row_length: int
    rows: int
    slots: int
    steps: int
    seed: int
    marks: Marks
    finish: Callable[[Batch, int], Batch]
    first_step: int = 0
    first_place: int = 0  # of the order, at the first step
    first_row: int = 0  # this process's slice of the rows
    last_row: int | None = None

    @property
    def starts(self) -> tuple[int]:
        return (self.first_step,)

    @property
    def _total(self) -> int:
        return sum(map(len, self.corpora))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self._total // self.batch_size)

    def epoch(self, step: int) -> float:
        """How often the data have been seen after so many steps."""
        return step / self.steps_per_epoch

    @property
    def examples(self) -> Sequence[int]:
        """Numbers of the windows of text."""
        return range(sum(corpus.windows for corpus in self.corpora))

    def numbers(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The corpus, the row within it, and that corpus' epoch, of each row of a step that holds text."""
        places = self.first_place + (step - self.first_step) * self.batch_size + np.arange(self.batch_size)
        if self.order is not None:
            return self.order.rows(places)
        places = places[places < self._total]
        ends = np.cumsum([len(corpus) for corpus in self.corpora])
        corpus = np.searchsorted(ends, places, side="right")
        return corpus, places - np.concatenate([[0], ends])[corpus], np.zeros_like(places)

    def __call__(self, step: int) -> Batch:
        """In evaluations pairs and masks are those of step 0, whichever batch a row is in."""
        corpora, numbers, epochs = self.numbers(step)
        step = 0 if self.order is None else step
        last = self.rows if self.last_row is None else self.last_row
        corpora, numbers, epochs = (part[self.first_row : last] for part in (corpora, numbers, epochs))
        windows = self._read(corpora, numbers)
        counts = np.array([len(row.about) for row in windows], np.int64)
        row = np.repeat(np.arange(len(windows)), counts)
        slot = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        # Numbered by where it lies in its corpus and by the epoch, for a batch larger than its corpus has copies of a
        # row: positive int32, and the same on any mesh and in any batch.
        where = corpora[row], numbers[row], slot, epochs[row]
        example_ids = (random_bits((self.seed,), *where) >> np.uint32(1)).astype(np.int32)
        texts = [text for row_ in windows for text in np.split(row_.tokens, np.cumsum(row_.about["length"])[:-1])]
        if self.marks.ends_sentence is None or not texts:  # a process may have nothing of a split's last rows
            pairs = [Pair(text, text[:0], False) for text in texts]
        else:
            pairs = self._pairs(step, corpora, numbers, row, example_ids, texts, windows)
        return self._assemble(pairs, row, slot, example_ids, last - self.first_row, step)

    def _assemble(
        self, pairs: list[Pair], row: np.ndarray, slot: np.ndarray, example_ids: np.ndarray, rows: int, step: int
    ) -> Batch:
        cls, sep = np.array([self.marks.cls]), np.array([self.marks.sep])
        paired = self.marks.ends_sentence is not None
        parts = [(cls, p.first, sep, p.second, sep) if paired else (cls, p.first, sep) for p in pairs]
        firsts = np.array([len(p.first) + 2 for p in pairs], np.int64)
        seconds = np.array([len(p.second) + 1 if paired else 0 for p in pairs], np.int64)
        lengths = firsts + seconds
        types = np.repeat(np.tile([0, 1], len(pairs)), np.stack([firsts, seconds], 1).ravel())
        before = np.cumsum(lengths) - lengths
        start = before - before[np.searchsorted(row, row)]
        input_ids = np.concatenate(list(itertools.chain.from_iterable(parts)) or [cls[:0]])
        batch = lay_out(
            input_ids, types, lengths, example_ids, Layout(row, start, slot), shape=(rows, self.row_length, self.slots)
        )
        if paired:
            batch["follows"] = np.zeros((rows, self.slots), np.int32)
            batch["follows"][row, slot] = [p.random for p in pairs]
        return self.finish(batch, step)

    def _read(self, corpora: np.ndarray, numbers: np.ndarray) -> list:
        windows: list = [None] * len(numbers)
        for corpus in np.unique(corpora):
            here = np.flatnonzero(corpora == corpus)
            for place, found in zip(here, self.corpora[corpus].read(numbers[here].tolist()), strict=True):
                windows[place] = found
        return windows

    def _pairs(
        self, step: int, corpora: np.ndarray, numbers: np.ndarray, row: np.ndarray, example_ids: np.ndarray,
        texts: list[np.ndarray], windows: list,
    ) -> list[Pair]:  # fmt: skip
        """Pairs of a window's own halves, or of its first half and text of another row, drawn anew in each step."""
        assert self.marks.ends_sentence is not None
        sizes = np.array([len(corpus) for corpus in self.corpora])
        draws = uniform(random_bits((self.seed, step, Purpose.PAIR), example_ids[:, None], np.arange(4)[None]))
        documents = np.concatenate([found.about["document"] for found in windows])
        usable: list[list[np.ndarray]] = [[] for _ in texts]
        bounds = np.searchsorted(row, np.arange(len(windows) + 1)).tolist()
        pending = np.arange(len(windows))  # rows with a text that has none of another document yet
        for attempt in range(_ATTEMPTS):
            corpus = corpora[pending]
            key = (self.seed, step, Purpose.OTHER_ROW, attempt)
            others = (random_bits(key, corpus, numbers[pending]) % sizes[corpus]).astype(np.int64)
            for here, other, found in zip(pending.tolist(), others.tolist(), self._read(corpus, others), strict=True):
                rows = self.corpora[corpora[here]]
                same_part = rows.part(int(numbers[here])) == rows.part(other)
                candidates = np.split(found.tokens, np.cumsum(found.about["length"])[:-1])
                for index in range(bounds[here], bounds[here + 1]):
                    same = same_part & (found.about["document"] == documents[index])
                    usable[index] = usable[index] or list(itertools.compress(candidates, ~same))
            pending = np.unique(row[[not found for found in usable]])
        return [pair(t, usable[n], draws[n], self.marks.ends_sentence) for n, t in enumerate(texts)]

    def tokens(self, step: int) -> float:
        """Real tokens of a step over all processes: the mean, since rows are filled alike."""
        return self.count(step) * self.row_length * self.fill

    def count(self, step: int) -> int:
        """Rows of text in a step, over all processes."""
        return len(self.numbers(step)[0])

    filled_rows = count

    @property
    def fill(self) -> float:
        """Share of the places of the rows that hold a token."""
        return sum(corpus.tokens for corpus in self.corpora) / (self._total * self.row_length)

    def digest(self) -> str:
        """Of the rows, as their manifests tell, and of how they become batches, whichever slice is this process's."""
        shape = [self.batch_size, self.rows, self.row_length, self.slots, self.steps, self.first_step, self.first_place]
        return digest([*(corpus.manifest for corpus in self.corpora), *shape, self.seed])

    def data_digest(self) -> str:
        """Of the rows alone."""
        return digest([corpus.manifest for corpus in self.corpora])

    def describe_examples(self, step: int, most: int = 3) -> str:
        """Where a step's rows came from, for a message."""
        corpora, numbers, _ = self.numbers(step)
        found = [self.corpora[c].describe(int(n)) for c, n in zip(corpora[:most], numbers[:most], strict=True)]
        return "; ".join(found) + (f"; and {len(numbers) - most} more rows" if len(numbers) > most else "")


class PhasedBatches:
    """Batches of different shapes, one phase after the other; called as `loader.Batches` is."""

    def __init__(self, phases: Sequence[RowBatches]):
        self._phases = phases
        self.starts = [phase.first_step for phase in phases]
        self.steps = sum(phase.steps for phase in phases)
        self.steps_per_epoch = max(1, round(self.steps / self.epoch(self.steps)))  # on average

    def epoch(self, step: int) -> float:
        """How often the data have been seen after so many steps."""
        return sum(min(max(step - phase.first_step, 0), phase.steps) / phase.steps_per_epoch for phase in self._phases)

    def phase(self, step: int) -> RowBatches:
        return self._phases[bisect.bisect_right(self.starts, step) - 1]

    def __call__(self, step: int) -> Batch:
        return self.phase(step)(step)

    def tokens(self, step: int) -> float:
        return self.phase(step).tokens(step)

    def count(self, step: int) -> int:
        return self.phase(step).count(step)

    filled_rows = count

    def digest(self) -> str:
        return digest([phase.digest() for phase in self._phases])

    def data_digest(self) -> str:
        return digest([phase.data_digest() for phase in self._phases])

    def describe_examples(self, step: int) -> str:
        return self.phase(step).describe_examples(step)
