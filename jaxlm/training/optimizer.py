"""AdamW with warm-up and decay (Loshchilov and Hutter 2019), from optax."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxlm.config import OptimSettings

_NOT_DECAYED = ("bias", "qkv_bias", "scale")


def warmup_steps(settings: OptimSettings, steps: int) -> int:
    """`settings.warmup` as a number of steps, at most `steps`."""
    asked = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    return min(round(asked), steps)


def learning_rate_schedule(settings: OptimSettings, steps: int) -> Callable[[Any], Any]:
    """The learning rate of step 0, 1, ..., `steps` - 1: a linear rise to the peak, then the decay towards 0.

    The first step's rate is not 0 but one rise's worth, and the last step's is not 0 either: no step is wasted.
    """
    rise = warmup_steps(settings, steps)
    fall = steps - rise
    peak = settings.learning_rate
    decays = {
        "linear": lambda: optax.linear_schedule(peak, 0.0, fall),
        "cosine": lambda: optax.cosine_decay_schedule(peak, fall),
        "constant": lambda: optax.constant_schedule(peak),
    }
    decay = decays[settings.schedule]() if fall else optax.constant_schedule(peak)
    if not rise:
        return decay
    first = peak / rise
    return optax.join_schedules([optax.linear_schedule(first, peak + first, rise), decay], [rise])


def is_decayed(params: Any) -> Any:
    """Which parameters weight decay touches, by name: not biases, not LayerNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in _NOT_DECAYED, params)


def make_optimizer(settings: OptimSettings, steps: int) -> optax.GradientTransformation:
    """AdamW over `steps` steps, after clipping by the global norm."""
    adamw = optax.adamw(
        learning_rate_schedule(settings, steps),
        b1=settings.beta1,
        b2=settings.beta2,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=is_decayed,
    )
    if settings.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)
