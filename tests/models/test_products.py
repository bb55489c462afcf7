"""The products with gradients written out are those of automatic differentiation."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jaxlm.models import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    SentenceEncoder,
    placement,
    products,
)
from jaxlm.models.hub import PretrainedModel
from jaxlm.models.products import affine, decoder_cross_entropy, multiply, project_to_heads
from jaxlm.parallel.collectives import collectives
from jaxlm.parallel.mesh import by_rows, in_context, make_mesh, replicated

from .reference import SHAPES, relative_error


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """The plain products compared with are float32's, as ours are by themselves."""
    with jax.default_matmul_precision("float32"):
        yield


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 12), (12, 5)])
def test_affine_and_its_gradients_are_the_plain_ones(inputs: int, outputs: int) -> None:
    arguments = draw(2, 7, inputs), draw(inputs, outputs, seed=1), draw(outputs, seed=2)
    outer = draw(2, 7, outputs, seed=3)

    def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return x @ kernel + bias

    found, back = jax.vjp(affine, *arguments)
    expected, reference = jax.vjp(plain, *arguments)
    assert relative_error(found, expected) < 1e-6
    for one, other in zip(back(outer), reference(outer), strict=True):
        assert relative_error(one, other) < 1e-5


def test_gradients_keep_the_dtypes_of_what_they_are_of() -> None:
    x, kernel, bias = draw(4, 6).astype(jnp.bfloat16), draw(6, 3), draw(3)
    found = jax.grad(lambda *a: affine(*a).astype(jnp.float32).sum(), (0, 1, 2))(x, kernel, bias)
    assert [part.dtype for part in found] == [jnp.bfloat16, jnp.float32, jnp.float32]
    exact = jax.grad(lambda *a: affine(*a).sum(), (0, 1, 2))(x.astype(jnp.float32), kernel, bias)
    for one, other in zip(found, exact, strict=True):
        assert relative_error(one.astype(jnp.float32), other) < 2e-2


@pytest.mark.parametrize(("platform", "asked"), [("cpu", "float32"), ("tpu", "bfloat16"), ("gpu", "bfloat16")])
def test_a_cpu_is_asked_for_float32_the_only_product_that_it_has_bfloat16_instructions_for(
    platform: str, asked: str
) -> None:
    device = AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)):
        program = jax.make_jaxpr(multiply)(draw(4, 6).astype(jnp.bfloat16), draw(6, 3).astype(jnp.bfloat16))
    (product,) = [equation for equation in program.eqns if equation.primitive.name == "dot_general"]
    assert (product.outvars[0].aval.dtype, program.out_avals[0].dtype) == (asked, jnp.bfloat16)


def test_on_this_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert placement.platform() == "cpu"
    with in_context(make_mesh(1)):
        assert placement.platform() == "cpu"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert placement.platform() == "gpu"


ROWS, TOKENS, WIDTH, WORDS = 8, 7, 16, 1000


def decoder(dtype: jnp.dtype = jnp.float32) -> tuple[Any, Any, list[jax.Array]]:
    """A weighted sum of the decoder's cross-entropies, the same by optax, and arguments of both."""
    arguments = [draw(ROWS, TOKENS, WIDTH).astype(dtype), draw(WORDS, WIDTH, seed=1), draw(WORDS, seed=2)]
    labels = jnp.arange(ROWS * TOKENS).reshape(ROWS, TOKENS) * 17
    weights = jnp.arange(ROWS * TOKENS).reshape(ROWS, TOKENS) % 3 / 2

    def ours(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
        return (decoder_cross_entropy(x, table, bias, labels) * weights).sum()

    def plain(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(x.astype(jnp.float32) @ table.T + bias, labels)
        return (losses * weights).sum()

    return ours, plain, arguments


@pytest.mark.parametrize("at_once", [ROWS * TOKENS, 3 * ROWS, ROWS, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_the_decoders_cross_entropy_is_optaxs_and_so_are_its_gradients_in_any_number_of_parts(
    monkeypatch: pytest.MonkeyPatch, dtype: jnp.dtype, tolerance: float, at_once: int
) -> None:
    monkeypatch.setattr(products, "_MOST_LOGITS", at_once * WORDS)
    ours, plain, arguments = decoder(dtype)
    value, gradients = jax.value_and_grad(ours, (0, 1, 2))(*arguments)
    expected, references = jax.value_and_grad(plain, (0, 1, 2))(*arguments)
    assert float(value) == pytest.approx(float(expected), rel=tolerance)
    for one, other in zip(gradients, references, strict=True):
        assert one.dtype == other.dtype
        assert relative_error(one.astype(jnp.float32), other.astype(jnp.float32)) < tolerance


def test_logits_of_all_tokens_never_exist_but_for_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain, arguments = decoder()

    def temporaries(function: Any) -> int:
        compiled = jax.jit(jax.grad(function, (0, 1, 2))).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = ROWS * TOKENS * WORDS * 4
    assert min(temporaries(plain), temporaries(ours)) > 1.9 * logits
    monkeypatch.setattr(products, "_MOST_LOGITS", ROWS * WORDS)
    assert temporaries(ours) < 1.5 * logits  # in bfloat16 it would be half; a CPU multiplies that as float32


@pytest.mark.parametrize(("axes", "axis"), [({}, "data"), ({"fsdp": 8}, "fsdp"), ({"fsdp": 2, "tensor": 2}, "data")])
def test_parts_of_the_decoders_tokens_cost_no_exchange_of_gradients_each(
    monkeypatch: pytest.MonkeyPatch, axes: dict[str, int], axis: str
) -> None:
    monkeypatch.setattr(products, "_MOST_LOGITS", 2 * WORDS // axes.get("tensor", 1))
    ours, plain, arguments = decoder()
    mesh = make_mesh(8, **axes)
    with in_context(mesh):
        step = jax.jit(
            jax.value_and_grad(ours, (0, 1, 2)), in_shardings=(by_rows(mesh), replicated(mesh), replicated(mesh))
        )
        compiled = step.lower(*arguments).compile()
        value, gradients = step(*arguments)
    expected, references = jax.value_and_grad(plain, (0, 1, 2))(*arguments)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(gradients, references, strict=True):
        assert relative_error(one, other) < 1e-5
    found = collectives(compiled.as_text() or "", mesh.shape)
    assert all("tensor" in item.axes for item in found if item.in_loop)
    large = [item for item in found if axis in item.axes and item.bytes > 1000]
    words = WORDS // axes.get("tensor", 1)
    assert 0 <= sum(item.bytes for item in large) - words * (WIDTH + 1) * 4 <= 4  # the losses' sum may go with them


def test_what_is_projected_to_heads_on_a_tpu_is_what_the_matrix_gives() -> None:
    x, kernel, bias, weights = draw(3, 5, 8), draw(8, 3, 2, 4), draw(3, 2, 4), draw(3, 5, 3, 2, 4)

    def one(*arguments: jax.Array) -> jax.Array:
        return (project_to_heads(*arguments) * weights).sum()

    def other(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return ((x @ kernel.reshape(8, -1) + bias.reshape(-1)).reshape(weights.shape) * weights).sum()

    found, expected = (jax.value_and_grad(of, argnums=(0, 1, 2))(x, kernel, bias) for of in (one, other))
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    rounded = [value.astype(jnp.bfloat16) for value in (x, kernel, bias)]
    assert [gradient.dtype for gradient in jax.grad(one, argnums=(0, 1, 2))(*rounded)] == ["bfloat16"] * 3


def products_of(program: Any) -> list[Any]:
    """All matrix products of a jaxpr, those inside of its parts too."""
    found = [equation for equation in program.eqns if equation.primitive.name == "dot_general"]
    parts = [value for equation in program.eqns for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr)]
    return found + [item for part in parts if _is_jaxpr(part) for item in products_of(getattr(part, "jaxpr", part))]


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_products_of_float32_are_asked_for_in_float32(platform: str, dtype: Any) -> None:
    """Of whole models, forward and backward: a TPU takes bfloat16 for them by default, a GPU TF32."""
    config = SHAPES["relu"]
    ids = jnp.ones((2, 8), jnp.int32)
    places = jnp.zeros((2, 3), jnp.int32)

    def program(model: type[PretrainedModel], **arguments: Any) -> Any:
        graphdef, state = nnx.split(nnx.eval_shape(lambda: model(config, dtype=dtype, rngs=nnx.Rngs(0))))

        def total(state: Any) -> jax.Array:
            outputs = nnx.merge(graphdef, state)(ids, dropout_key=jax.random.key(0), **arguments)
            return sum(output.astype(jnp.float32).sum() for output in outputs)

        return jax.make_jaxpr(jax.grad(total))(state).jaxpr

    device = AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    with jax.default_matmul_precision(None), jax.sharding.use_abstract_mesh(mesh):
        programs = [
            program(BertForPreTraining),
            program(BertForMaskedLM, predict_positions=places, predict_labels=places),
            program(BertForSequenceClassification, pool_positions=places),
            program(SentenceEncoder, pool_positions=places),
        ]
    products = [equation for of in programs for equation in products_of(of)]
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert len(products) > 100

    def asked(dtype: Any) -> set[Any]:
        own = [item for item in products if all(factor.aval.dtype == dtype for factor in item.invars)]
        return {item.params["precision"] for item in own}

    assert asked(jnp.float32) <= ({highest, None} if platform == "cpu" else {highest})
    assert asked(jnp.bfloat16) == ({None} if dtype == jnp.bfloat16 else set())
