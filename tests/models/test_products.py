"""The products with gradients written out are those of automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from jaxlm.models import placement
from jaxlm.models.products import affine, decoder_cross_entropy, multiply, project_to_heads
from jaxlm.parallel.mesh import in_context, make_mesh

from .reference import relative_error


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


def test_the_decoders_cross_entropy_is_optaxs_and_so_are_its_gradients() -> None:
    x, table, bias = draw(9, 8), draw(31, 8, seed=1), draw(31, seed=2)
    labels, weights = jnp.arange(9) * 3, jnp.array([1, 0, 1, 2, 0, 0, 1, 1, 0.5])

    def plain(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(x @ table.T + bias, labels)
        return (losses * weights).sum()

    def found(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
        return (decoder_cross_entropy(x, table, bias, labels) * weights).sum()

    value, gradients = jax.value_and_grad(found, (0, 1, 2))(x, table, bias)
    expected, references = jax.value_and_grad(plain, (0, 1, 2))(x, table, bias)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    for one, other in zip(gradients, references, strict=True):
        assert relative_error(one, other) < 1e-5


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
