import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, classification_report, f1_score

from jaxlm.config import Config, TrainSettings
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, SequenceClassifierOutput
from jaxlm.tasks.classification import Classification, label_names, model_labels

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["some words to train on"] * 3, 200, lowercase=True)


def make_logits(rows: int = 4, slots: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(rows, slots, 3)).astype(np.float32)
    return logits, draw.integers(0, 3, (rows, slots)), (draw.random((rows, slots)) < 0.7).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy_summed_over_real_examples(tokenizer: TextTokenizer, smoothing: float) -> None:
    logits, labels, weights = make_logits()
    task = Classification(Config(train=TrainSettings(label_smoothing=smoothing)), tokenizer, LABELS)
    arrays = ("input_ids", "token_type_ids", "positions", "segment_ids", "pool_positions", "example_ids")
    batch = {name: jnp.zeros((4, 8), jnp.int32) for name in arrays}
    batch |= {"labels": jnp.asarray(labels), "example_weights": jnp.asarray(weights)}

    def model(*_: jax.Array, **__: jax.Array) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(jnp.asarray(logits))

    loss, weight = task.loss_sums(model, batch, None), task.loss_weights(batch)
    real = weights > 0
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits[real]), torch.tensor(labels[real]), reduction="sum", label_smoothing=smoothing
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(weight) == real.sum()


def test_metrics_are_scikit_learns(tokenizer: TextTokenizer) -> None:
    draw = np.random.default_rng(1)
    logits, truth = draw.normal(size=(50, 3)), draw.integers(0, 3, 50).astype(np.int32)
    none = np.zeros(0)
    examples = Examples(none, none, np.arange(51), {"labels": truth}, [""] * 50, "file")
    metrics = Classification(Config(), tokenizer, LABELS).metrics({}, {"logits": logits}, examples)
    guess = logits.argmax(1)
    report = classification_report(truth, guess, target_names=LABELS, output_dict=True)
    assert metrics["accuracy"] == accuracy_score(truth, guess)
    assert metrics["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"], abs=1e-12)
    for name in LABELS:
        assert metrics["per_class"][name]["recall"] == pytest.approx(report[name]["recall"], abs=1e-12)
        assert metrics["per_class"][name]["precision"] == pytest.approx(report[name]["precision"], abs=1e-12)
    assert np.array(metrics["confusion"]).sum() == 50
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(truth, dtype=torch.long))
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-9)
    assert metrics["majority_accuracy"] == np.bincount(truth).max() / 50


@pytest.mark.parametrize("truth", [[1, 1, 1], [1, 0, 1]])
def test_one_class_alone_is_no_warning(
    tokenizer: TextTokenizer, truth: list[int], recwarn: pytest.WarningsRecorder
) -> None:
    none = np.zeros(0)
    examples = Examples(none, none, np.arange(4), {"labels": np.array(truth, np.int32)}, [""] * 3, "file")
    found = Classification(Config(), tokenizer, LABELS).metrics({}, {"logits": np.eye(3)[[1, 1, 1]]}, examples)
    assert (found["matthews_correlation"], list(recwarn)) == (0.0, [])


def test_macro_f1_is_scikit_learns_where_a_class_does_not_occur(tokenizer: TextTokenizer) -> None:
    truth, guess = [LABELS[0], LABELS[0], LABELS[1]], [0, 1, 1]
    task = Classification(Config(), tokenizer, LABELS)
    examples, _ = task.examples(Table("x", ["a"] * 3, None, truth, [""] * 3))
    found = task.metrics({}, {"logits": 9.0 * np.eye(len(LABELS), dtype=np.float32)[guess]}, examples)
    expected = f1_score([LABELS.index(name) for name in truth], guess, average="macro")
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-12)
    assert len(found["per_class"]) == len(LABELS) == 3


def test_labels_are_ordered_as_numbers_as_names_or_as_the_source_says() -> None:
    def table(labels: list[str], stated: list[str] | None = None) -> Table:
        return Table("file", ["x"] * len(labels), None, labels, [""] * len(labels), stated)

    assert label_names(table(["10", "9", "1", "9"])) == ["1", "9", "10"]
    assert label_names(table(["sad", "glad", "mad"])) == ["glad", "mad", "sad"]
    assert label_names(table(["no", "yes"], ["yes", "no", "maybe"])) == ["yes", "no", "maybe"]
    with pytest.raises(UserError, match="only 'x'"):
        label_names(table(["x", "x"]))


@pytest.mark.parametrize(
    ("own", "labels", "new_head", "expected"),
    [
        (["c", "a", "b"], ["a", "b", "c"], False, ["c", "a", "b"]),  # the same ones
        (["a", "b", "c"], ["b", "c", "d"], False, ["d", "b", "c"]),  # rows of the classifier stay with their classes
        (["a", "b", "c"], ["b", "c", "d"], True, ["b", "c", "d"]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["b", "c", "d"], False, ["b", "c", "d"]),
        (["a", "b", "c"], ["b", "c"], False, ["b", "c"]),
        (["0", "1"], ["1", "2"], False, ["1", "2"]),
    ],
)
def test_known_classes_keep_their_place_in_a_classifier(
    own: list[str], labels: list[str], new_head: bool, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    shape = BertConfig(vocab_size=50, id2label=dict(enumerate(own)))
    assert model_labels(shape, labels, new_head=new_head) == expected
    told = len(own) == len(labels) and set(own) != set(labels) and not new_head and own[0] != "LABEL_0"
    assert ("has other classes" in caplog.text) == told


def test_an_unknown_label_is_an_error_with_its_place_or_left_out(tokenizer: TextTokenizer) -> None:
    table = Table("dev.tsv", ["one", "two", "three"], None, ["a", "z", "c"], ["line 1", "line 2", "line 3"])
    task = Classification(Config(), tokenizer, LABELS)
    with pytest.raises(UserError, match=r"dev\.tsv, line 2: label 'z'"):
        task.examples(table)
    skipping = Config(data=dataclasses.replace(Config().data, bad_rows="skip"))
    examples, _ = Classification(skipping, tokenizer, LABELS).examples(table)
    assert examples.targets["labels"].tolist() == [0, 2]
    assert examples.places == ["line 1", "line 3"]
    assert table.skipped == {"unknown label": 1}
    alone, _ = task.examples(Table("x", ["three"], None, ["c"], [""]))
    np.testing.assert_array_equal(examples.input_ids[examples.offsets[1] :], alone.input_ids)


def test_a_prediction_names_the_likeliest_label(tokenizer: TextTokenizer) -> None:
    task = Classification(Config(), tokenizer, LABELS)
    found = task.prediction({"logits": np.array([0.0, np.log(2), np.log(5)])})
    assert found["label"] == "c"
    assert found["probabilities"] == pytest.approx({"a": 1 / 8, "b": 2 / 8, "c": 5 / 8})
