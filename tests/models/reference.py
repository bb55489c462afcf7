"""What the tests compare with: transformers' BERT on PyTorch with random weights, and how far apart two results are."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

from jaxlm.models import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from jaxlm.models.hub import PretrainedModel

CLASSES: dict[str, type[PretrainedModel]] = {
    "BertModel": BertModel,
    "BertForMaskedLM": BertForMaskedLM,
    "BertForPreTraining": BertForPreTraining,
    "BertForSequenceClassification": BertForSequenceClassification,
    "BertForTokenClassification": BertForTokenClassification,
    "BertForQuestionAnswering": BertForQuestionAnswering,
}

SHAPES = {
    "erf": BertConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                      max_position_embeddings=24, type_vocab_size=2, hidden_act="gelu"),
    "tanh": BertConfig(vocab_size=128, hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40,
                       max_position_embeddings=16, type_vocab_size=1, hidden_act="gelu_new", layer_norm_eps=1e-5,
                       id2label={0: "entailment"}),
    "relu": BertConfig(vocab_size=37, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=96,
                       max_position_embeddings=40, type_vocab_size=2, hidden_act="relu", layer_norm_eps=1e-2,
                       id2label={0: "no", 1: "yes", 2: "maybe"}),
}  # fmt: skip


# jax.jit for tests: XLA optimises as always, LLVM does not, which halves the time that compiling tiny models takes.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def torch_model(class_name: str, shape: str) -> Any:
    """A transformers model without dropout. No parameter is 0 or 1: what is left out or swapped shows."""
    config = transformers.BertConfig(**dataclasses.asdict(SHAPES[shape]))
    model = getattr(transformers, class_name)(config).eval()
    generator = torch.Generator().manual_seed(len(class_name) + len(shape))
    for name, parameter in model.named_parameters():
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        torch.nn.init.normal_(parameter, mean, 0.3, generator=generator)
    return model


def batch(shape: str, *, padded: bool) -> dict[str, np.ndarray]:
    """Three texts of random tokens and token types, of 12 tokens each, or if `padded` of 12, 7 and 2: `[3, 12]`."""
    config, rng = SHAPES[shape], np.random.default_rng(5)
    lengths = np.array([12, 7, 2] if padded else [12, 12, 12])
    return {
        "input_ids": rng.integers(1, config.vocab_size, (3, 12)),
        "token_type_ids": rng.integers(0, config.type_vocab_size, (3, 12)),
        "attention_mask": (np.arange(12) < lengths[:, None]).astype(np.int64),
    }


def torch_outputs(model: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def outputs(model: nnx.Module, **arrays: Any) -> Any:
    """The model's output, compiled once for all tests that ask for it in the same shape."""
    graphdef, params = nnx.split(model)
    return _outputs(graphdef, params, arrays)


@functools.partial(quick_jit, static_argnums=0)
def _outputs(graphdef: nnx.GraphDef, params: nnx.State, arrays: dict[str, jax.Array]) -> Any:
    return nnx.merge(graphdef, params)(**arrays)


def flat_params(params: Any) -> dict[str, Any]:
    """Nested parameters, or their gradients or shapes, by dotted name."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {".".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def random_params(model: type[PretrainedModel], config: BertConfig) -> dict[str, Any]:
    """Parameters for `nnx.merge(model.abstract(config)[0], ...)`; as in `torch_model`, none is 0 or 1."""
    rng = np.random.default_rng(2)
    leaves, tree = jax.tree.flatten(model.abstract(config)[1])
    return jax.tree.unflatten(tree, [jnp.array(rng.normal(0.0, 0.3, leaf.shape), jnp.float32) for leaf in leaves])


def params_of(model: nnx.Module) -> dict[str, jax.Array]:
    return flat_params(nnx.to_pure_dict(nnx.state(model)))


def relative_error(found: Any, expected: Any) -> float:
    """The largest difference, in units of the largest expected value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def assert_gradients_equal(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Each gradient differs by at most `tolerance` of its norm.

    The gradient of a key's bias is 0 (softmax ignores a constant): rounding alone is left of it, which counts as equal
    up to `tolerance / 100` of the norm of all gradients together.
    """
    assert found.keys() == expected.keys()
    norms = {name: float(np.linalg.norm(np.asarray(gradient))) for name, gradient in expected.items()}
    floor = tolerance / 100 * float(np.linalg.norm(list(norms.values())))
    for name, norm in norms.items():
        distance = float(np.linalg.norm(np.asarray(found[name]) - np.asarray(expected[name])))
        assert distance <= tolerance * norm + floor, f"{name}: {distance:.2e} of {norm:.2e}"


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of each `logits [..., classes]`, by its definition."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
