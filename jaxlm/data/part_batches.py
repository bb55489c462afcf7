"""Batches of several tasks on one encoder: side by side in a training step, one after the other in an evaluation."""

import dataclasses
from typing import Any

import numpy as np

from jaxlm.data.digest import digest
from jaxlm.data.loader import Batch, Batches, Examples


@dataclasses.dataclass(frozen=True)
class PartBatches:
    """A batch of every part in each step; the arrays of a part are named `NAME/array`.

    Each part goes through its own examples as it would alone: in an order of its own, packed into rows of its own
    length, and from the start again when it is through. An epoch ends when each has been through at least once. With
    batch sizes in proportion to the numbers of examples, which is the default (`jaxlm.config.Part`), all are through
    at about the same step: a task is seen in proportion to its size, as in MT-DNN (Liu et al. 2019, algorithm 1) and in
    jiant's proportional sampler, but no step is left to one task, and all steps have the same shapes.
    """

    parts: dict[str, Batches]
    steps: int

    starts = (0,)  # steps at which the shapes change

    def __call__(self, step: int) -> Batch:
        return {f"{name}/{key}": value for name, own in self.parts.items() for key, value in own(step).items()}

    def epoch(self, step: int) -> float:
        """How often the data have been seen after so many steps."""
        return step / self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return max(own.steps_per_epoch for own in self.parts.values())

    def tokens(self, step: int) -> float:
        """Real tokens of a step, over all parts and processes."""
        return sum(own.tokens(step) for own in self.parts.values())

    def count(self, step: int) -> int:
        """Examples of a step, over all parts and processes."""
        return sum(own.count(step) for own in self.parts.values())

    def digest(self) -> str:
        """As `Batches.digest`, of all parts."""
        return digest([[name, own.digest()] for name, own in self.parts.items()])

    def data_digest(self) -> str:
        """As `Batches.data_digest`, of all parts."""
        return digest([[name, own.data_digest()] for name, own in self.parts.items()])

    def describe_examples(self, step: int, most: int = 8) -> str:
        """Where a step's examples came from, for a message."""
        return "; ".join(f"{name}: {own.describe_examples(step, most)}" for name, own in self.parts.items())


@dataclasses.dataclass(frozen=True)
class PartsInTurn:
    """All batches of the first part, then those of the next: each example once, however long a part is."""

    parts: dict[str, Batches]

    @property
    def steps(self) -> int:
        return sum(own.steps for own in self.parts.values())

    @property
    def starts(self) -> tuple[int, ...]:
        """The first step of each part."""
        ends = np.cumsum([own.steps for own in self.parts.values()]).tolist()
        return (0, *ends[:-1])

    @property
    def examples(self) -> dict[str, Examples]:
        return {name: own.examples for name, own in self.parts.items()}

    def digest(self) -> str:
        """As `Batches.digest`, of all parts."""
        return digest([[name, own.digest()] for name, own in self.parts.items()])

    def data_digest(self) -> str:
        """As `Batches.data_digest`, of all parts."""
        return digest([[name, own.data_digest()] for name, own in self.parts.items()])

    def _at(self, step: int) -> tuple[str, int]:
        """The part that a step belongs to, and which of its own steps it is."""
        name, start = next(
            (name, start) for name, start in reversed(list(zip(self.parts, self.starts, strict=True))) if step >= start
        )
        return name, step - start

    def __call__(self, step: int) -> Batch:
        name, own = self._at(step)
        return {f"{name}/{key}": value for key, value in self.parts[name](own).items()}

    def collect(self, step: int, values: np.ndarray, of_tokens: bool, into: np.ndarray | None) -> np.ndarray:
        """As `Batches.collect`, into the arrays of the part that the step belongs to."""
        name, own = self._at(step)
        return self.parts[name].collect(own, values, of_tokens, into)


def of_part(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    """What is named `NAME/array`, without the part's name."""
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
