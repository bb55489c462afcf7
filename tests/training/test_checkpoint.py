"""Which checkpoints of a run are kept."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxlm.training.checkpoint import Checkpoints


@pytest.mark.parametrize(("larger_is_better", "best"), [(True, 2), (False, 3)])
def test_the_best_and_the_newest_are_kept_and_nothing_else(tmp_path: Path, larger_is_better: bool, best: int) -> None:
    checkpoints = Checkpoints(tmp_path, larger_is_better)
    for step, score in enumerate([0.5, 0.7, 0.3, 0.6, None, None], 1):
        checkpoints.save(step, {"x": jnp.full((), step)}, {"step": step}, score)
        checkpoints.wait()
        assert step < best or (checkpoints.best(), checkpoints.latest()) == (best, step)
    state, progress = checkpoints.restore(best, {"x": jax.ShapeDtypeStruct((), int)})
    assert (int(state["x"]), progress) == (best, {"step": best})
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(best), "6"]
