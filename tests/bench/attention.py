"""Attention within packed rows on a GPU: XLA's program beside the fused kernel, forward and backward, dropout included.

    python tests/bench/attention.py

Heads of BERT-large in bfloat16, 64k tokens, rows full of texts of 32 tokens, of half a row, and of a whole row. A line
for each: milliseconds (the median of 20), and the share of the chip's peak that all products make, masked ones too.
Which is faster at a length decides `--model.attention`.
"""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.models.attention import attend, segment_mask
from jaxlm.models.dropout import DropoutSites
from jaxlm.models.fused_attention import fused_attend

TOKENS, HEADS, HEAD_DIM, RATE = 1 << 16, 16, 64, 0.1
PEAK = 989e12  # of an H100 or H200 in bfloat16


def milliseconds(step: Any, *arguments: Any) -> float:
    jax.block_until_ready(step(*arguments))
    found = []
    for _ in range(20):
        started = time.perf_counter()
        jax.block_until_ready(step(*arguments))
        found.append(time.perf_counter() - started)
    return 1000 * statistics.median(found)


def measure(length: int, text: int) -> str:
    rows = TOKENS // length
    segment_ids = jnp.broadcast_to(1 + jnp.arange(length) // text, (rows, length))
    examples = segment_ids + 1000 * jnp.arange(rows)[:, None]
    positions = jnp.broadcast_to(jnp.arange(length) % text, (rows, length))
    site = DropoutSites.create(jax.random.key(0), 1, examples, positions).site(0, 0)
    draw = np.random.default_rng(0)
    vectors = [jnp.array(draw.normal(size=(rows, length, HEADS, HEAD_DIM)), jnp.bfloat16) for _ in range(4)]

    def xla(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return attend(query, key, value, segment_mask(segment_ids, segment_ids), RATE, site)

    def fused(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return fused_attend(query, key, value, segment_ids, RATE, site)

    cells = [f"{length}", f"{text}"]
    for way in (xla, fused):
        step = jax.jit(lambda *x, way=way: jax.vjp(way, *x[:3])[1](x[3]))
        spent = milliseconds(step, *vectors)
        flops = 3 * 4 * rows * HEADS * length**2 * HEAD_DIM
        cells += [f"{spent:.2f}", f"{flops / spent * 1000 / PEAK:.0%}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    if jax.default_backend() != "gpu":
        raise SystemExit(f"a GPU is measured here, and JAX has found a {jax.default_backend()}")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("| row | text | xla, ms | of peak | fused, ms | of peak |\n|---|---|---|---|---|---|")
    for length in (128, 512):
        for text in (32, length // 2, length):
            print(measure(length, text), flush=True)


if __name__ == "__main__":
    main()
