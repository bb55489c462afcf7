"""Exact evaluation: every example once, whatever the batch and the mesh."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jaxlm.parallel.mesh import by_rows, fetch_rows, in_context, put_batch, replicated
from jaxlm.tasks import Task
from jaxlm.tasks.base import Metrics, Outputs


class Evaluator:
    """A task's evaluation step, compiled once a batch shape; parameters may lie on the mesh in any way."""

    def __init__(self, task: Task, graphdef: nnx.GraphDef, mesh: Mesh):
        self._task = task
        self._mesh = mesh
        whole, rows = replicated(mesh), by_rows(mesh)

        def step(params: Any, batch: dict[str, jax.Array]) -> Outputs:
            with in_context(mesh):
                return task.evaluate(nnx.merge(graphdef, params), batch)

        self._step = jax.jit(step, in_shardings=(None, rows), out_shardings=Outputs(whole, rows, rows))

    def _run(self, params: Any, batches: Any, steps: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(step number, device results), one step behind the device so that it never waits for the host."""
        waiting = None
        for number in steps:
            results = self._step(params, put_batch(batches(number), self._mesh))
            if waiting is not None:
                yield waiting
            waiting = (number, results)
        if waiting is not None:
            yield waiting

    def outputs(
        self, params: Any, batches: Any, *, steps: Sequence[int] | None = None
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Added scalars, and collected arrays `[examples, ...]` and `[tokens, ...]` in the order of the examples.

        Args:
          batches: Batches, or another kind of a split's batches (`jaxlm.training.setup.Setup`).
          steps: which of them are evaluated; the examples of the others then stay 0. None: all.
        """
        sums: dict[str, float] = {}
        collected: dict[str, np.ndarray] = {}
        for number, found in self._run(params, batches, range(batches.steps) if steps is None else steps):
            for name, value in found.sums.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            for arrays, of_tokens in ((found.by_example, False), (found.by_token, True)):
                for name, value in arrays.items():
                    collected[name] = batches.collect(number, fetch_rows(value), of_tokens, collected.get(name))
        return sums, collected

    def evaluate(self, params: Any, batches: Any, *, calibrate: bool = False) -> Metrics:
        """The task's metrics over all examples; `calibrate` first chooses on them what the task leaves to dev."""
        sums, outputs = self.outputs(params, batches)
        if calibrate:
            self._task.calibrate(outputs, batches.examples)
        return self._task.metrics(sums, outputs, batches.examples)
