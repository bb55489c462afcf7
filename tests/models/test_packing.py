"""Where an example lies does not matter: packed rows compute and train as one example a row does."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxlm.models import (
    BertForIntentAndSlots,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from jaxlm.models.hub import PretrainedModel

from .reference import (
    SHAPES,
    assert_gradients_equal,
    cross_entropy,
    flat_params,
    quick_jit,
    random_params,
    relative_error,
)

CONFIG = dataclasses.replace(
    SHAPES["erf"], hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.4, classifier_dropout=0.2,
    id2label={0: "no", 1: "yes", 2: "maybe"}, id2intent={0: "ask", 1: "tell"},
)  # fmt: skip
LENGTHS = np.array([5, 9, 3, 12, 4, 7, 2])


class Example(NamedTuple):
    input_ids: np.ndarray  # [length]
    token_type_ids: np.ndarray  # [length]
    label: int


_RNG = np.random.default_rng(3)
EXAMPLES = [
    Example(_RNG.integers(1, CONFIG.vocab_size, n), _RNG.integers(0, 2, n), int(_RNG.integers(0, 3))) for n in LENGTHS
]


class Layout(NamedTuple):
    arrays: dict[str, np.ndarray]  # a model's arguments
    rows: np.ndarray  # [examples], the row in which each example lies
    slots: np.ndarray  # [examples], its place among `pool_positions`
    offsets: np.ndarray  # [examples], its first token


def unpacked() -> Layout:
    """One example a row, as users of transformers write it."""
    arrays = {name: np.zeros((len(EXAMPLES), 12), int) for name in ("input_ids", "token_type_ids", "attention_mask")}
    for row, example in enumerate(EXAMPLES):
        here = row, slice(LENGTHS[row])
        arrays["input_ids"][here] = example.input_ids
        arrays["token_type_ids"][here] = example.token_type_ids
        arrays["attention_mask"][here] = 1
    zeros = np.zeros(len(EXAMPLES), int)
    return Layout(arrays, np.arange(len(EXAMPLES)), zeros, zeros)


def packed(members: list[list[int]], length: int) -> Layout:
    """`members` says which examples lie in each row, in which order."""
    names = ("input_ids", "token_type_ids", "segment_ids", "position_ids", "example_ids")
    arrays = {name: np.zeros((len(members), length), int) for name in names}
    arrays["pool_positions"] = np.zeros((len(members), max(map(len, members))), int)
    places = np.zeros((3, len(EXAMPLES)), int)
    for row, numbers in enumerate(members):
        offset = 0
        for slot, number in enumerate(numbers):
            here = row, slice(offset, offset + LENGTHS[number])
            arrays["input_ids"][here] = EXAMPLES[number].input_ids
            arrays["token_type_ids"][here] = EXAMPLES[number].token_type_ids
            arrays["segment_ids"][here] = slot + 1
            arrays["position_ids"][here] = np.arange(LENGTHS[number])
            arrays["example_ids"][here] = number
            arrays["pool_positions"][row, slot] = offset
            places[:, number] = row, slot, offset
            offset += LENGTHS[number]
    return Layout(arrays, *places)


LAYOUTS = {
    "unpacked": unpacked(),
    "packed": packed([[0, 1], [2, 3], [4, 5, 6]], 17),
    "packed in another order": packed([[6, 3], [5, 0, 4], [1, 2]], 17),
    "packed in one row": packed([[4, 0, 6, 1, 5, 2, 3]], 45),  # which is longer than the model's 24 positions
}


class Result(NamedTuple):
    logits: jax.Array  # [examples, labels]
    loss: jax.Array  # [], the sum over the examples
    gradients: dict[str, jax.Array]


@functools.partial(quick_jit, static_argnums=0)
def _loss_and_gradients(graphdef: nnx.GraphDef, params: Any, layout: Layout, key: jax.Array | None) -> Result:
    labels = jnp.array([example.label for example in EXAMPLES])

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = nnx.merge(graphdef, params)(**layout.arrays, dropout_key=key).logits
        logits = logits[layout.rows] if logits.ndim == 2 else logits[layout.rows, layout.slots]
        return cross_entropy(logits, labels).sum(), logits

    (total, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return Result(logits, total, flat_params(gradients))


@functools.cache
def classify(layout: str, seed: int | None) -> Result:
    """`seed` is that of dropout; None computes without."""
    graphdef = BertForSequenceClassification.abstract(CONFIG)[0]
    params = random_params(BertForSequenceClassification, CONFIG)
    return _loss_and_gradients(graphdef, params, LAYOUTS[layout], None if seed is None else jax.random.key(seed))


@pytest.mark.parametrize("seed", [None, 8], ids=["without dropout", "with dropout"])
def test_packed_logits_loss_and_gradients_equal_unpacked(seed: int | None) -> None:
    expected = classify("unpacked", seed)
    for layout in ("packed", "packed in another order"):
        found = classify(layout, seed)
        assert relative_error(found.logits, expected.logits) < 1e-5, layout
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5, err_msg=layout)
        assert_gradients_equal(found.gradients, expected.gradients, 1e-5)


def test_the_dropout_that_packing_preserves_is_there() -> None:
    without, first, second = classify("packed", None), classify("packed", 8), classify("packed", 9)
    assert relative_error(first.logits, without.logits) > 0.1
    assert relative_error(first.logits, second.logits) > 0.1


@pytest.mark.parametrize(
    ("model", "seed"),  # of dropout; None is without
    [(BertForPreTraining, None), (BertForPreTraining, 8), (BertForIntentAndSlots, 8), (BertForTokenClassification, 8)],
)
def test_packed_token_and_sentence_logits_equal_unpacked(model: type[PretrainedModel], seed: int | None) -> None:
    graphdef, params = model.abstract(CONFIG)[0], random_params(model, CONFIG)
    key = None if seed is None else jax.random.key(seed)
    run = quick_jit(lambda params, arrays: nnx.merge(graphdef, params)(**arrays, dropout_key=key))

    def logits(layout: Layout) -> list[np.ndarray]:
        arrays = dict(layout.arrays)
        if model is BertForTokenClassification:
            arrays.pop("pool_positions", None)
        found = []
        for array in map(np.asarray, run(params, arrays)):
            if array.shape[:2] == layout.arrays["input_ids"].shape:  # of tokens
                places = zip(layout.rows, layout.offsets, LENGTHS, strict=True)
                found.append(np.concatenate([array[row, offset : offset + n] for row, offset, n in places]))
            else:
                found.append(array[layout.rows] if array.ndim == 2 else array[layout.rows, layout.slots])
        return found

    expected = logits(LAYOUTS["unpacked"])
    for found, wanted in zip(logits(LAYOUTS["packed in one row"]), expected, strict=True):
        assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("seed", [None, 8], ids=["without dropout", "with dropout"])
def test_packed_start_and_end_logits_equal_unpacked(seed: int | None) -> None:
    graphdef = BertForQuestionAnswering.abstract(CONFIG)[0]
    params = random_params(BertForQuestionAnswering, CONFIG)
    key = None if seed is None else jax.random.key(seed)
    run = quick_jit(lambda params, arrays: nnx.merge(graphdef, params)(**arrays, dropout_key=key))

    def logits(layout: Layout) -> np.ndarray:
        arrays = {name: array for name, array in layout.arrays.items() if name != "pool_positions"}
        scores = np.stack(run(params, arrays), axis=-1)
        places = zip(layout.rows, layout.offsets, LENGTHS, strict=True)
        return np.concatenate([scores[row, offset : offset + length] for row, offset, length in places])

    assert relative_error(logits(LAYOUTS["packed in another order"]), logits(LAYOUTS["unpacked"])) < 1e-5
