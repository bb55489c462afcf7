"""The heads compute what transformers' do, and train as they do."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jaxlm.models import BertConfig, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification
from jaxlm.models.names import rules_for

from .conftest import Checkpoints
from .reference import (
    SHAPES,
    assert_gradients_equal,
    batch,
    cross_entropy,
    flat_params,
    outputs,
    quick_jit,
    relative_error,
    torch_model,
    torch_outputs,
)

_OF_ALL_SHAPES = (
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForTokenClassification",
)


@pytest.mark.parametrize(
    ("class_name", "shape"),
    [(name, shape) for name in _OF_ALL_SHAPES for shape in SHAPES]
    + [("BertForQuestionAnswering", "erf")],  # whose two labels transformers takes for start and end
)
def test_logits_equal_transformers(class_name: str, shape: str, checkpoints: Checkpoints) -> None:
    for arrays in (batch(shape, padded=False), batch(shape, padded=True)):
        found = outputs(checkpoints.model(class_name, shape), **arrays)._asdict()
        expected = torch_outputs(torch_model(class_name, shape), arrays)
        assert found.keys() == expected.keys()
        for name, logits in found.items():
            assert logits.dtype == jnp.float32
            np.testing.assert_allclose(logits, expected[name], atol=1e-4, rtol=0, err_msg=name)


def classification_loss(model: nnx.Module, arrays: dict[str, Any]) -> jax.Array:
    labels = jnp.array([2, 0, 1])
    return cross_entropy(model(**arrays).logits, labels).mean()


def torch_classification_loss(model: Any, arrays: dict[str, Any]) -> torch.Tensor:
    return model(**arrays, labels=torch.tensor([2, 0, 1])).loss


TAGS = np.where(np.arange(36).reshape(3, 12) % 4 == 1, np.arange(36).reshape(3, 12) % 3, -100)


def tagging_loss(model: nnx.Module, arrays: dict[str, Any]) -> jax.Array:
    chosen = TAGS >= 0
    return (cross_entropy(model(**arrays).logits, jnp.where(chosen, TAGS, 0)) * chosen).sum() / chosen.sum()


def torch_tagging_loss(model: Any, arrays: dict[str, Any]) -> torch.Tensor:
    return model(**arrays, labels=torch.from_numpy(TAGS)).loss


MLM_LABELS = np.where(np.arange(36).reshape(3, 12) % 5 == 1, np.arange(36).reshape(3, 12), -100)


def mlm_loss(model: nnx.Module, arrays: dict[str, Any]) -> jax.Array:
    chosen = MLM_LABELS >= 0
    losses = cross_entropy(model(**arrays).logits, jnp.where(chosen, MLM_LABELS, 0))
    return (losses * chosen).sum() / chosen.sum()


def torch_mlm_loss(model: Any, arrays: dict[str, Any]) -> torch.Tensor:
    return model(**arrays, labels=torch.from_numpy(MLM_LABELS)).loss


ENDS = np.array([[0, 3, 1], [11, 3, 0]])  # where each text's answer starts and ends


def answer_loss(model: nnx.Module, arrays: dict[str, Any]) -> jax.Array:
    return sum(cross_entropy(logits, ends).mean() for logits, ends in zip(model(**arrays), ENDS, strict=True)) / 2


def torch_answer_loss(model: Any, arrays: dict[str, Any]) -> torch.Tensor:
    return model(**arrays, start_positions=torch.from_numpy(ENDS[0]), end_positions=torch.from_numpy(ENDS[1])).loss


@pytest.mark.parametrize(
    ("class_name", "shape", "loss", "torch_loss"),
    [
        ("BertForSequenceClassification", "relu", classification_loss, torch_classification_loss),
        ("BertForTokenClassification", "relu", tagging_loss, torch_tagging_loss),
        ("BertForMaskedLM", "relu", mlm_loss, torch_mlm_loss),
        ("BertForQuestionAnswering", "erf", answer_loss, torch_answer_loss),
    ],
)
def test_loss_and_gradients_equal_torch_autograd(
    class_name: str,
    shape: str,
    loss: Callable[[nnx.Module, dict[str, Any]], jax.Array],
    torch_loss: Callable[[Any, dict[str, Any]], torch.Tensor],
    checkpoints: Checkpoints,
) -> None:
    config, arrays = SHAPES[shape], batch(shape, padded=True)
    graphdef, params = nnx.split(checkpoints.model(class_name, shape))
    found, gradients = quick_jit(jax.value_and_grad(lambda params: loss(nnx.merge(graphdef, params), arrays)))(params)

    reference = torch_model(class_name, shape)
    expected = torch_loss(reference, {name: torch.from_numpy(array) for name, array in arrays.items()})
    names, parameters = zip(*reference.named_parameters(), strict=True)
    torch_gradients = torch.autograd.grad(expected, parameters)

    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4)
    rules = rules_for(config)
    mapped = {
        name: part
        for ours, gradient in flat_params(nnx.to_pure_dict(gradients)).items()
        for name, part in zip(rules[ours].theirs, rules[ours].save(gradient), strict=True)
    }
    assert_gradients_equal(mapped, dict(zip(names, torch_gradients, strict=True)), 1e-4)


@pytest.mark.parametrize("class_name", ["BertForMaskedLM", "BertForPreTraining"])
def test_logits_at_predict_positions_are_those_of_the_whole_rows(class_name: str, checkpoints: Checkpoints) -> None:
    model, arrays = checkpoints.model(class_name), batch("erf", padded=True)
    chosen = np.array([[11, 3, 3], [0, 6, 2], [1, 0, 1]])
    whole = outputs(model, **arrays)[0]
    found = outputs(model, **arrays, predict_positions=chosen)[0]
    assert found.shape == (3, 3, 61)
    assert relative_error(found, np.take_along_axis(np.asarray(whole), chosen[..., None], axis=1)) < 1e-5


@pytest.mark.parametrize("class_name", ["BertForMaskedLM", "BertForPreTraining"])
def test_losses_are_the_cross_entropies_of_the_logits(class_name: str, checkpoints: Checkpoints) -> None:
    model, arrays = checkpoints.model(class_name), batch("erf", padded=True)
    chosen, labels = np.array([[11, 3, 3], [0, 6, 2], [1, 0, 1]]), np.array([[5, 6, 7], [60, 0, 1], [2, 3, 4]])
    logits = outputs(model, **arrays, predict_positions=chosen)[0]
    found = outputs(model, **arrays, predict_positions=chosen, predict_labels=labels)
    np.testing.assert_allclose(found[0], cross_entropy(logits, labels), rtol=1e-5)


def test_a_padded_batch_gives_each_text_its_own_class(checkpoints: Checkpoints) -> None:
    model, arrays = checkpoints.model("BertForSequenceClassification"), batch("erf", padded=True)
    together = outputs(model, **arrays)
    alone = outputs(model, **{name: array[1:2, :7] for name, array in arrays.items()})
    assert relative_error(together.logits[1:2], alone.logits) < 1e-5


@pytest.mark.parametrize("class_name", ["BertForPreTraining", "BertForSequenceClassification"])
def test_logits_are_float32_under_bfloat16_compute_and_differ_by_less_than_3_percent_rms(
    class_name: str, checkpoints: Checkpoints
) -> None:
    arrays = batch("erf", padded=False)
    exact = outputs(checkpoints.model(class_name), **arrays)
    rounded = outputs(checkpoints.model(class_name, dtype=jnp.bfloat16), **arrays)
    for found, expected in zip(rounded, exact, strict=True):
        assert found.dtype == jnp.float32
        assert 1e-4 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 3e-2


def classifier_rates(config: BertConfig, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The dropout rates that the classification head asks for."""
    rates: list[float] = []

    def record(x: jax.Array, rate: float, site: object) -> jax.Array:
        rates.append(rate)
        return x

    monkeypatch.setattr("jaxlm.models.heads.dropout_tokens", record)
    graphdef, params = BertForSequenceClassification.abstract(config)
    jax.eval_shape(
        lambda params: nnx.merge(graphdef, params)(jnp.ones((1, 4), jnp.int32), dropout_key=jax.random.key(0)), params
    )
    return rates


def test_classifier_dropout_defaults_to_the_hidden_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(SHAPES["relu"], hidden_dropout_prob=0.3)
    assert classifier_rates(config, monkeypatch) == [0.3]
    assert classifier_rates(dataclasses.replace(config, classifier_dropout=0.0), monkeypatch) == [0.0]
    assert classifier_rates(dataclasses.replace(config, classifier_dropout=0.2), monkeypatch) == [0.2]


def test_the_decoder_is_the_word_embedding_itself() -> None:
    for model in (BertForMaskedLM, BertForPreTraining):
        shapes = flat_params(model.abstract(SHAPES["relu"])[1])
        of_vocabulary = {name for name, leaf in shapes.items() if SHAPES["relu"].vocab_size in leaf.shape}
        assert of_vocabulary == {"bert.embeddings.word", "mlm.bias"}
