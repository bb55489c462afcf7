"""Which checkpoints of a run are kept."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxlm.parallel import distributed
from jaxlm.training.checkpoint import Checkpoints


def test_the_newest_and_the_chosen_one_are_kept_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, keep, kept in [(1, None, [1]), (2, None, [2]), (3, 2, [2, 3]), (4, 2, [2, 4]), (5, 4, [4, 5])]:
        checkpoints.save(step, {"x": jnp.full((), step)}, {"step": step}, keep)
        checkpoints.wait()
        assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in kept]
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 5
    state, progress = checkpoints.restore(4, {"x": jax.ShapeDtypeStruct((), int)})
    assert (int(state["x"]), progress) == (4, {"step": 4})
    checkpoints.close()


def test_a_checkpoint_of_another_host_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system shows it late, as NFS does."""
    late = Checkpoints(tmp_path)
    assert late.newest_of_all() is None
    writer = Checkpoints(tmp_path)
    writer.save(7, {"x": jnp.zeros(())}, {})
    writer.close()
    monkeypatch.setattr(distributed, "of_first", lambda name, value: 7)
    assert (late.newest_of_all(), late.latest()) == (7, 7)
    late.close()
