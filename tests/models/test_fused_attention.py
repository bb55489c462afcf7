"""The kernel for GPUs, interpreted on a CPU: its numbers are those of plain attention."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding

from jaxlm.models import BertForPreTraining, CheckpointError
from jaxlm.models.attention import attend, segment_mask
from jaxlm.models.dropout import DropoutSite, DropoutSites
from jaxlm.models.fused_attention import fused_attend
from jaxlm.models.placement import spec
from jaxlm.parallel.mesh import in_context, make_mesh

from .reference import SHAPES, assert_gradients_equal, flat_params, quick_jit, random_params, relative_error


def _packed(*lengths: int, padding: int = 0) -> list[int]:
    """Segment ids of a row."""
    return [number for number, length in enumerate(lengths, 1) for _ in range(length)] + [0] * padding


ROWS = {
    "packed over three blocks": [_packed(30, 3, 90, 20, padding=7), _packed(64, 64, 22), _packed(150)],
    "padded on either side": [_packed(11, padding=9), [0] * 4 + _packed(16), _packed(1, padding=19)],
}


def _site(segment_ids: jax.Array) -> DropoutSite:
    examples = segment_ids + 10 * jnp.arange(len(segment_ids))[:, None]
    positions = jnp.broadcast_to(jnp.arange(segment_ids.shape[1]), segment_ids.shape)
    return DropoutSites.create(jax.random.key(3), 2, examples, positions).site(1, 0)


def _case(rows: list[list[int]], *shape: int, dtype: Any = jnp.float32) -> tuple[jax.Array, list[jax.Array]]:
    """Segment ids; and query, key, value and the gradient of what becomes of them, which is 0 at padding."""
    segment_ids = jnp.array(rows)
    values = np.random.default_rng(0).normal(size=(4, *segment_ids.shape, *shape))
    values[3] *= np.array(rows)[:, :, None, None] > 0
    return segment_ids, [jnp.array(value, dtype) for value in values]


def _results(
    way: Literal["plain", "fused"], segment_ids: jax.Array, vectors: list[jax.Array], rate: float
) -> tuple[jax.Array, ...]:
    """What comes out, padding apart, and the gradients of query, key and value."""

    def run(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        site = _site(segment_ids) if rate else None
        if way == "fused":
            return fused_attend(query, key, value, segment_ids, rate, site)
        return attend(query, key, value, segment_mask(segment_ids, segment_ids), rate, site)

    *inputs, gradient = vectors
    out, backward = jax.vjp(run, *inputs)
    return jnp.where((segment_ids > 0)[:, :, None, None], out, 0), *backward(gradient)


results = quick_jit(_results, static_argnames=("way", "rate"))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_results_and_gradients_are_those_of_plain_attention(rows: str, rate: float) -> None:
    case = _case(ROWS[rows], 2, 16)
    for found, expected in zip(results("fused", *case, rate), results("plain", *case, rate), strict=True):
        assert relative_error(found, expected) < 2e-6


def test_results_of_bfloat16_are_as_close_to_those_of_float32() -> None:
    """As plain attention is, which rounds the same way: weights and results to eight bits, sums not at all."""
    segment_ids, vectors = _case(ROWS["packed over three blocks"], 2, 32, dtype=jnp.bfloat16)
    exact = results("plain", segment_ids, [x.astype(jnp.float32) for x in vectors], 0.1)
    plain, fused = (results(way, segment_ids, vectors, 0.1) for way in ("plain", "fused"))
    for found, other, wanted in zip(fused, plain, exact, strict=True):
        assert found.dtype == jnp.bfloat16
        assert relative_error(found, wanted) < 1.5 * relative_error(other, wanted)


def test_a_row_of_padding_gives_nothing_and_no_nan() -> None:
    case = _case([_packed(40), [0] * 40], 1, 16)
    for found in results("fused", *case, 0.1):
        np.testing.assert_array_equal(found[1], 0)
    out = fused_attend(*case[1][:3], case[0])
    np.testing.assert_array_equal(out[1], 0)


def test_blocks_without_an_example_in_common_are_not_met() -> None:
    """A weight of 0 times NaN would be NaN."""
    segment_ids, (query, key, value, _) = _case([_packed(60, 4, 64, 64)], 1, 16)
    out = fused_attend(query, key, value.at[:, 64:128].set(jnp.nan), segment_ids)
    assert jnp.isnan(out[:, 64:128]).all()
    assert jnp.isfinite(out[:, :64]).all()
    assert jnp.isfinite(out[:, 128:]).all()


def test_on_a_mesh_each_device_has_its_rows_and_heads() -> None:
    segment_ids, vectors = _case([_packed(9, 8, padding=3), _packed(20)] * 2, 4, 16)
    expected = results("plain", segment_ids, vectors, 0.3)
    mesh = make_mesh(8, fsdp=2, tensor=2)

    with in_context(mesh):
        rows, vector = (NamedSharding(mesh, spec("rows", *axes)) for axes in ([None], [None, "tensor", None]))

    def step(segment_ids: jax.Array, vectors: list[jax.Array]) -> tuple[jax.Array, ...]:
        with in_context(mesh):
            return _results("fused", segment_ids, vectors, 0.3)

    found = jax.jit(step, in_shardings=(rows, [vector] * 4))(segment_ids, vectors)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 2e-6


def test_a_model_computes_the_same_with_it() -> None:
    config = dataclasses.replace(
        SHAPES["erf"], hidden_size=32, num_attention_heads=2, attention_probs_dropout_prob=0.3, scan_layers=True
    )
    segment_ids = np.array([_packed(7, 4, padding=1), _packed(12)])
    inputs = {
        "input_ids": np.random.default_rng(7).integers(1, config.vocab_size, (2, 12)),
        "segment_ids": segment_ids,
        "position_ids": np.array([[*range(7), *range(4), 0], [*range(12)]]),
        "example_ids": segment_ids + np.array([[0], [5]]),
        "pool_positions": np.array([[0, 7], [0, 0]]),
        "predict_positions": np.array([[2, 9], [1, 5]]),
    }
    params = random_params(BertForPreTraining, config)

    def gradients(attention: str) -> dict[str, jax.Array]:
        graphdef = BertForPreTraining.abstract(dataclasses.replace(config, attention=attention))[0]

        def loss(params: Any) -> jax.Array:
            logits = nnx.merge(graphdef, params)(**inputs, dropout_key=jax.random.key(3))
            return sum(jnp.square(jax.nn.log_softmax(part)).sum() for part in logits)

        assert ("pallas_call" in str(jax.make_jaxpr(loss)(params))) == (attention == "fused")
        return flat_params(quick_jit(jax.grad(loss))(params))

    assert_gradients_equal(gradients("fused"), gradients("xla"), 2e-6)


def test_it_is_a_kernel_in_a_program_for_gpus() -> None:
    """Lowering to Triton needs no GPU; one kernel forward, two backward."""
    case = _case(ROWS["packed over three blocks"], 2, 64, dtype=jnp.bfloat16)
    device = AbstractDevice("NVIDIA H100", None, "gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)):
        traced = jax.jit(lambda *case: _results("fused", *case, 0.1)).trace(*case)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    for kernel in ("forward", "query_gradient", "key_gradient"):
        assert text.count(f'name = "{kernel}_kernel"') == 1


def test_heads_of_other_widths_are_refused() -> None:
    with pytest.raises(CheckpointError, match="heads are 24 wide; the kernel serves 16, 32, 64, 128"):
        dataclasses.replace(SHAPES["erf"], hidden_size=48, num_attention_heads=2, attention="fused")
    with pytest.raises(CheckpointError, match="attention is 'flash'; it is one of xla, fused"):
        dataclasses.replace(SHAPES["erf"], **{"attention": "flash"})
