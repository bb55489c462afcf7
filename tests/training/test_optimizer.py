from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup, get_wsd_schedule

from jaxlm.config import OptimSettings, Phase
from jaxlm.models import BertConfig, BertForPreTraining
from jaxlm.training.optimizer import clip_by_global_norm, is_decayed, learning_rate_schedule, make_optimizer

Tree = dict[str, Any]


def _rates(schedule: Callable[[Any], Any], steps: int) -> np.ndarray:
    """All rates, asked for one by one from Python and all at once inside jit, which must agree."""
    outside = np.array([float(schedule(step)) for step in range(steps)])
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(jnp.arange(steps)), outside, rtol=1e-5, atol=1e-6)
    return outside


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_the_decay_after_the_warmup_is_that_of_transformers(schedule: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs = {
        "linear": lambda: get_linear_schedule_with_warmup(optimizer, 20, 100),
        "cosine": lambda: get_cosine_schedule_with_warmup(optimizer, 20, 100),
        "wsd": lambda: get_wsd_schedule(optimizer, 20, 30, 100, decay_type="linear"),
    }[schedule]()
    settings = OptimSettings(learning_rate=0.5, schedule=schedule, warmup=0.2, decay=0.3)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = _rates(learning_rate_schedule(settings, 100), 100)
    np.testing.assert_allclose(ours[20:], expected[20:], atol=1e-6)
    # The warm-up is one step ahead of theirs, whose first step has a rate of 0 and changes nothing.
    np.testing.assert_allclose(ours[:19], expected[1:20], atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "warmup", "decay", "rates"),
    [
        ("linear", 0, 0, [1, 0.75, 0.5, 0.25]),
        ("linear", 2, 0, [0.5, 1, 1, 0.5]),
        ("linear", 4, 0, [0.25, 0.5, 0.75, 1]),
        ("linear", 9, 0, [0.25, 0.5, 0.75, 1]),
        ("linear", 0, 0, [1]),
        ("linear", 0.06, 0, [1]),
        ("linear", 1, 0, [1]),
        ("cosine", 0, 0, [1, 0.853553, 0.5, 0.146447]),
        ("cosine", 0.5, 0, [0.5, 1, 1, 0.5]),
        ("cosine", 4, 0, [0.25, 0.5, 0.75, 1]),
        ("cosine", 0, 0, [1]),
        ("constant", 0, 0, [1, 1, 1]),
        ("constant", 2, 0.5, [0.5, 1, 1, 1]),
        ("constant", 3, 0, [1 / 3, 2 / 3, 1]),
        ("wsd", 2, 4, [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        ("wsd", 0.2, 0.4, [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        ("wsd", 0, 2, [1, 1, 1, 0.5]),
        ("wsd", 1, 2, [1, 1, 1, 0.5]),
        ("wsd", 0, 0, [1, 1, 1]),
        ("wsd", 1, 0, [1, 1, 1]),
        ("wsd", 0, 4, [1, 0.75, 0.5, 0.25]),
        ("wsd", 0, 9, [1, 0.75, 0.5, 0.25]),
        ("wsd", 2, 0.99, [0.5, 1, 1, 0.5]),
        ("wsd", 4, 4, [0.25, 0.5, 0.75, 1]),
        ("wsd", 0, 1, [1]),
        ("wsd", 1, 1, [1]),
    ],
)
def test_rates_are_those_written_out(schedule: Any, warmup: float, decay: float, rates: list[float]) -> None:
    settings = OptimSettings(learning_rate=3, schedule=schedule, warmup=warmup, decay=decay)
    ours = _rates(learning_rate_schedule(settings, len(rates)), len(rates))
    np.testing.assert_allclose(ours, 3 * np.array(rates), rtol=1e-5)


PHASES = pytest.mark.parametrize(
    ("phases", "rates"),
    [
        # Without a peak of its own, a phase goes on in the schedule before it.
        ((Phase(1), Phase(3)), [1, 1, 2 / 3, 1 / 3]),
        ((Phase(1), Phase(3, learning_rate=6), Phase(1)), [1, 6, 6, 4, 2]),
        ((Phase(2), Phase(2), Phase(3, learning_rate=0.5), Phase(1)), [1, 1, 2 / 3, 1 / 3, 0.5, 0.5, 1 / 3, 1 / 6]),
        ((Phase(4, learning_rate=3), Phase(4, learning_rate=3)), [3, 3, 2, 1, 3, 3, 2, 1]),
        # Its warm-up is that of the whole schedule that it starts.
        ((Phase(2, warmup=0.5), Phase(2), Phase(3, learning_rate=2, warmup=0), Phase(1)),
         [1 / 2, 1, 1, 1 / 2, 2, 3 / 2, 1, 1 / 2]),
    ],
)  # fmt: skip


@PHASES
def test_a_phase_with_a_peak_of_its_own_starts_a_schedule(phases: tuple[Phase, ...], rates: list[float]) -> None:
    schedule = learning_rate_schedule(OptimSettings(learning_rate=1, warmup=0.25), len(rates), phases)
    np.testing.assert_allclose(_rates(schedule, len(rates)), rates, rtol=1e-6)


@PHASES
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_the_optimizer_goes_by_the_phases(name: Any, phases: tuple[Phase, ...], rates: list[float]) -> None:
    settings = OptimSettings(learning_rate=1, warmup=0.25, weight_decay=0, clip_norm=None, optimizer=name)
    optimizer = make_optimizer(settings, len(rates), phases)
    params = {"bias": jnp.zeros(())}
    state = optimizer.init(params)
    for rate in rates:  # Adam's update for a gradient that does not change is 1
        update, state = optimizer.update({"bias": jnp.ones(())}, state, params)
        np.testing.assert_allclose(update["bias"], -rate, rtol=1e-4)


def test_phases_that_are_not_the_whole_run_are_refused() -> None:
    with pytest.raises(ValueError, match="5 steps together, not 6"):
        learning_rate_schedule(OptimSettings(), 6, (Phase(2), Phase(3)))


def test_biases_and_norms_are_not_decayed() -> None:
    params = BertForPreTraining.abstract(BertConfig(num_hidden_layers=1))[1]
    leaves = jax.tree_util.tree_leaves_with_path(is_decayed(params))
    decayed = {path[-1].key for path, touched in leaves if touched}
    spared = {path[-1].key for path, touched in leaves if not touched}
    assert decayed == {"kernel", "qkv_kernel", "word", "position", "token_type"}
    assert spared == {"bias", "qkv_bias", "scale"}


def test_updates_are_those_of_torch_adamw_after_clipping() -> None:
    draw = np.random.default_rng(0)
    start = {"kernel": draw.normal(size=(3, 4)), "bias": draw.normal(size=4)}
    settings = OptimSettings(learning_rate=0.1, schedule="constant", warmup=0, weight_decay=0.3, clip_norm=1.0)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    theirs = {name: torch.tensor(value, dtype=torch.float32, requires_grad=True) for name, value in start.items()}
    reference = torch.optim.AdamW(
        [{"params": [theirs["kernel"]], "weight_decay": 0.3}, {"params": [theirs["bias"]], "weight_decay": 0.0}], lr=0.1
    )
    optimizer = make_optimizer(settings, 5)
    state = optimizer.init(params)
    for size in (1, 0.05, 3, 0.1, 1):  # norms above 1 and below it
        grads = {name: (size * draw.normal(size=value.shape)).astype(np.float32) for name, value in start.items()}
        updates, state = optimizer.update({k: jnp.asarray(v) for k, v in grads.items()}, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in grads.items():
            theirs[name].grad = torch.tensor(value)
        torch.nn.utils.clip_grad_norm_(list(theirs.values()), 1.0)
        reference.step()
    for name in start:
        np.testing.assert_allclose(params[name], theirs[name].detach().numpy(), rtol=2e-5, atol=2e-6)


def test_clipping_leaves_gradients_of_zero_alone() -> None:
    zeros = {"kernel": jnp.zeros((3, 4))}
    clipped, _ = clip_by_global_norm(1.0).update(zeros, optax.EmptyState())
    np.testing.assert_array_equal(clipped["kernel"], zeros["kernel"])


def _run(optimizer: optax.GradientTransformation, params: Tree, grads: list[Tree]) -> Tree:
    """The parameters after a step for each of `grads`."""
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    state = optimizer.init(params)
    for grad in grads:
        updates, state = jax.jit(optimizer.update)(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def _drawn(shapes: dict[str, tuple[int, ...]], steps: int) -> tuple[Tree, list[Tree]]:
    draw = np.random.default_rng(1)
    start, *grads = ({n: draw.normal(size=s).astype(np.float32) for n, s in shapes.items()} for _ in range(1 + steps))
    return start, grads


def _algorithm_2(params: Tree, grads: list[Tree], settings: OptimSettings, rates: list[float]) -> Tree:
    """LAMB as the paper's algorithm 2 states it, in float64; every entry of the tree is a layer."""
    x = {name: value.astype(np.float64) for name, value in params.items()}
    m, v = ({name: np.zeros(value.shape) for name, value in x.items()} for _ in range(2))
    for t, (gradient, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))
        for name in x:
            g = gradient[name] * min(1, (settings.clip_norm or np.inf) / norm)
            m[name] = settings.beta1 * m[name] + (1 - settings.beta1) * g
            v[name] = settings.beta2 * v[name] + (1 - settings.beta2) * g**2
            r = m[name] / (1 - settings.beta1**t) / (np.sqrt(v[name] / (1 - settings.beta2**t)) + settings.epsilon)
            ratio = 1.0
            if name not in ("bias", "scale"):
                r = r + settings.weight_decay * x[name]
                weight, update = np.linalg.norm(x[name]), np.linalg.norm(r)
                ratio = weight / update if weight > 0 and update > 0 else 1.0
            x[name] = x[name] - rate * ratio * r
    return x


LAMB = OptimSettings(
    optimizer="lamb", learning_rate=0.1, warmup=0, weight_decay=0.3, beta1=0.8, beta2=0.98, epsilon=1e-6
)


@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_lamb_is_the_papers_algorithm(clip_norm: float | None) -> None:
    settings = OptimSettings(**{**vars(LAMB), "clip_norm": clip_norm})
    start, grads = _drawn({"kernel": (3, 4), "bias": (4,), "scale": (4,), "word": (5, 3), "position": (2, 3)}, 5)
    start["word"] *= 0  # a ratio of 1 in the first step
    ours = _run(make_optimizer(settings, 5), start, grads)
    theirs = _algorithm_2(start, grads, settings, [0.1, 0.08, 0.06, 0.04, 0.02])
    for name in start:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_lamb_is_optaxs_where_every_parameter_is_adapted() -> None:
    settings = OptimSettings(**{**vars(LAMB), "clip_norm": None, "schedule": "constant"})
    start, grads = _drawn({"kernel": (3, 4), "word": (5, 3)}, 5)
    theirs = optax.lamb(0.1, b1=0.8, b2=0.98, eps=1e-6, weight_decay=0.3)
    expected = _run(theirs, start, grads)
    for name, value in _run(make_optimizer(settings, 5), start, grads).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)


def test_lamb_takes_a_fused_kernel_for_three_matrices() -> None:
    shape, size = (6, 3, 2, 3), (6, 6)  # hidden, [query, key, value], heads, head_dim
    start, grads = _drawn({"qkv_kernel": shape}, 4)
    start["qkv_kernel"] *= np.array([0.1, 1, 10], np.float32)[:, None, None]

    def apart(tree: Tree) -> Tree:
        return {f"kernel{part}": tree["qkv_kernel"][:, part].reshape(size) for part in range(3)}

    fused = _run(make_optimizer(LAMB, 4), start, grads)
    three = _run(make_optimizer(LAMB, 4), apart(start), [apart(grad) for grad in grads])
    for name, value in apart(fused).items():
        np.testing.assert_allclose(value, three[name], rtol=1e-5, atol=1e-6)


def test_lamb_leaves_a_matrix_alone_that_nothing_moves() -> None:
    settings = OptimSettings(**{**vars(LAMB), "weight_decay": 0.0})
    params = {"kernel": jnp.ones((2, 2)), "word": jnp.ones((2, 2))}
    grads = [{"kernel": jnp.zeros((2, 2)), "word": jnp.ones((2, 2))}]
    np.testing.assert_array_equal(_run(make_optimizer(settings, 1), params, grads)["kernel"], params["kernel"])
