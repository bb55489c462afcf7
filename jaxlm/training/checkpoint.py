"""Checkpoints of a run, by orbax: written whole or not at all, in the background, restored onto any mesh."""

import logging
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

State = dict[str, Any]
logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of every checkpoint without a score


class Checkpoints:
    """The newest checkpoint of a run, and the best by a dev metric.

    A checkpoint holds the training state and `progress`, a small JSON dict of what the loop must remember besides.

    Args:
      directory: made if it is not there.
      larger_is_better: of the score that `save` is given.
    """

    def __init__(self, directory: Path, larger_is_better: bool):
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"],
            reverse=not larger_is_better,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), best]),
            best_fn=lambda metrics: metrics["score"],
            best_mode="max" if larger_is_better else "min",
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best score; None where none was scored."""
        return self._manager.best_step()

    def save(self, step: int, state: State, progress: dict[str, Any], score: float | None = None) -> None:
        """Copies the state off the devices and writes it in the background."""
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress))
        self._manager.save(step, args=arguments, metrics=None if score is None else {"score": score}, force=True)

    def restore(self, step: int, abstract_state: State) -> tuple[State, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `abstract_state` (`jax.ShapeDtypeStruct` leaves)."""
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=arguments)
        return found.state, found.progress

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
