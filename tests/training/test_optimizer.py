import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from jaxlm.config import OptimSettings
from jaxlm.training.optimizer import is_decayed, learning_rate_schedule, make_optimizer


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_decay_after_the_warmup_is_that_of_transformers(schedule: str) -> None:
    reference = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[schedule]
    settings = OptimSettings(learning_rate=0.5, schedule=schedule, warmup=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs, expected = reference(optimizer, 20, 100), []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = [float(learning_rate_schedule(settings, 100)(step)) for step in range(100)]
    np.testing.assert_allclose(ours[20:], expected[20:], atol=1e-6)
    # The warm-up is one step ahead of theirs, whose first step has a rate of 0 and changes nothing.
    np.testing.assert_allclose(ours[:19], expected[1:20], atol=1e-6)


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 10), (0.0, 1), (0.06, 1), (1.0, 1), (50.0, 10), (0.99, 10)])
def test_degenerate_warmups_give_finite_rates_up_to_the_peak(warmup: float, steps: int) -> None:
    rates = [
        float(learning_rate_schedule(OptimSettings(learning_rate=1.0, warmup=warmup), steps)(s)) for s in range(steps)
    ]
    assert all(0 < rate <= 1 for rate in rates)


def test_a_constant_schedule_stays_at_the_peak() -> None:
    rate = learning_rate_schedule(OptimSettings(learning_rate=0.25, schedule="constant", warmup=2), 10)
    assert [float(rate(step)) for step in range(4)] == [0.125, 0.25, 0.25, 0.25]


def test_biases_and_norms_are_not_decayed() -> None:
    tree = {"a": {"kernel": 0, "bias": 0}, "norm": {"scale": 0, "bias": 0}, "qkv_kernel": 0, "qkv_bias": 0, "word": 0}
    assert is_decayed(tree) == {
        "a": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "qkv_kernel": True,
        "qkv_bias": False,
        "word": True,
    }


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
    for _ in range(5):
        grads = {name: draw.normal(size=value.shape).astype(np.float32) for name, value in start.items()}
        updates, state = optimizer.update({k: jnp.asarray(v) for k, v in grads.items()}, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in grads.items():
            theirs[name].grad = torch.tensor(value)
        torch.nn.utils.clip_grad_norm_(list(theirs.values()), 1.0)
        reference.step()
    for name in start:
        np.testing.assert_allclose(params[name], theirs[name].detach().numpy(), rtol=2e-5, atol=2e-6)
