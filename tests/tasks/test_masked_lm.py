import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxlm.config import Config, DataSettings
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import MaskedLMLosses, MaskedLMOutput
from jaxlm.tasks.masked_lm import MaskedLM

TEXTS = ["a b c d e f g h i j k l", "m n", "o p q"]


@pytest.fixture
def task() -> MaskedLM:
    config = Config(task="masked_lm", data=DataSettings(max_length=7))
    return MaskedLM(config, TextTokenizer.train(TEXTS * 3, 200, lowercase=True))


def test_documents_are_cut_into_windows_that_lose_no_token(task: MaskedLM) -> None:
    table = Table("file", TEXTS, None, None, ["line 1", "line 2", "line 3"])
    examples, truncated = task.examples(table)
    assert truncated == 0
    windows = [examples.input_ids[a:b].tolist() for a, b in zip(examples.offsets, examples.offsets[1:], strict=False)]
    assert all(window[0] == 2 and window[-1] == 3 and len(window) <= 7 for window in windows)
    inside = [token for window in windows for token in window[1:-1]]
    assert inside == [token for text in TEXTS for token in task.tokenizer.tokenize_text(text).tolist()]
    assert examples.places == ["line 1"] * 3 + ["line 2", "line 3"]


def test_loss_and_metrics_count_masked_tokens_alone(task: MaskedLM) -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(2, 3, 11)).astype(np.float32)
    labels = draw.integers(0, 11, (2, 3))
    weights = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    names = ("input_ids", "token_type_ids", "positions", "segment_ids", "predict_positions", "example_ids")
    batch = {name: jnp.zeros((2, 8), jnp.int32) for name in names}
    batch |= {"predict_labels": jnp.asarray(labels), "predict_weights": jnp.asarray(weights)}

    def model(
        *_: jax.Array, predict_labels: jax.Array | None = None, **__: jax.Array
    ) -> MaskedLMOutput | MaskedLMLosses:
        if predict_labels is None:
            return MaskedLMOutput(jnp.asarray(logits))
        losses = torch.nn.functional.cross_entropy(
            torch.tensor(logits).flatten(0, 1), torch.tensor(labels).flatten(), reduction="none"
        )
        return MaskedLMLosses(jnp.asarray(losses.numpy()).reshape(2, 3))

    real = weights > 0
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits[real]), torch.tensor(labels[real])).item()
    loss, weight = task.loss_sums(model, batch, None), task.loss_weights(batch)
    assert float(loss) / float(weight) == pytest.approx(expected, rel=1e-6)
    sums = task.evaluate(model, batch).sums
    examples, _ = task.examples(Table("file", TEXTS, None, None, [""] * 3))
    metrics = task.metrics({name: float(value) for name, value in sums.items()}, {}, examples)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)
    assert metrics["accuracy"] == (logits.argmax(-1) == labels)[real].mean()
    assert metrics["masked_tokens"] == 3


def test_rows_that_cannot_be_filled_stop_or_are_left_out_and_counted(task: MaskedLM) -> None:
    texts = ["a [MASK]", "a b", "a [MASK] b c d e f g", "[MASK] b"]
    table = Table("file", texts, None, None, [f"line {number}" for number in range(1, 5)])
    with pytest.raises(
        UserError, match=r"file, line 2: there is no \[MASK\] in the text: 'a b'; .*--data.bad_rows skip"
    ):
        task.to_predict(table)
    with pytest.raises(UserError, match=r"file, line 2: there is no \[MASK\] in the text: 'a b'$"):
        task.examples_to_predict(table)
    skipping = MaskedLM(Config(data=DataSettings(max_length=7, bad_rows="skip")), task.tokenizer)
    left = skipping.to_predict(table)
    assert (left.texts, left.places) == ([texts[0], texts[3]], ["line 1", "line 4"])
    assert sorted(left.skipped.values()) == [1, 1]
    assert skipping.examples_to_predict(left)[0].targets["mask_offsets"].tolist() == [[2], [1]]
    with pytest.raises(UserError, match="no usable row"):
        skipping.to_predict(table.choose([1]))
