"""Checkpoints of a run, by orbax: written whole or not at all, in the background, restored onto any mesh."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxlm.atomic import no_space_told
from jaxlm.parallel import distributed

State = dict[str, Any]


class _Chosen(policies.PreservationPolicy):
    """Keeps the checkpoint of one step."""

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class Checkpoints:
    """The newest checkpoint of a run, and one that is chosen.

    A checkpoint holds the training state and `progress`, a small JSON dict of what the loop must remember besides.

    Args:
      directory: made if it is not there.
    """

    def __init__(self, directory: Path):
        self._chosen = _Chosen()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), self._chosen])
        )
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def newest_of_all(self) -> int | None:
        """`latest` of process 0, once every process can see it."""
        step: int | None = distributed.of_first("newest checkpoint", self.latest())
        if step != self.latest():
            distributed.wait_until_visible(self._directory / str(step))
            self._manager.reload()
        return step

    def save(self, step: int, state: State, progress: dict[str, Any], keep: int | None = None) -> None:
        """Copies the state off the devices and writes it in the background.

        Args:
          keep: the step of an earlier checkpoint that stays; all others go, once this one is whole.
        """
        self._chosen.step = keep
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress))
        with no_space_told(self._directory):
            self._manager.save(step, args=arguments, force=True)

    def restore(self, step: int, abstract_state: State) -> tuple[State, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `abstract_state` (`jax.ShapeDtypeStruct` leaves)."""
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), progress=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=arguments)
        return found.state, found.progress

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
          RunFailed: it did not fit.
        """
        with no_space_told(self._directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()
