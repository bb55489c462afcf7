"""Regression, sets of labels, and texts that belong to no class: losses, metrics and thresholds by someone else's."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    mean_squared_error,
    recall_score,
)

from jaxlm.config import Config, DataSettings, LabelSettings, TrainSettings
from jaxlm.config_checks import validate
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, SequenceClassifierOutput
from jaxlm.tasks.classification import Classification
from jaxlm.tasks.multi_label import MultiLabel, best_threshold
from jaxlm.tasks.regression import Regression

DRAW = np.random.default_rng(0)
SHAPE = BertConfig(vocab_size=200)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["some words to train on"] * 3, 200, lowercase=True)


def table(labels: list[Any], names: list[str] | None = None) -> Table:
    count = len(labels)
    return Table("rows.tsv", ["words"] * count, None, labels, [f"line {i + 1}" for i in range(count)], names)


def split(labels: np.ndarray) -> Examples:
    none = np.zeros(0)
    return Examples(none, none, np.arange(len(labels) + 1), {"labels": labels}, [""] * len(labels), "file")


def loss(task: Any, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    arrays = ("input_ids", "token_type_ids", "positions", "segment_ids", "pool_positions", "example_ids")
    batch = {name: jnp.zeros((4, 8), jnp.int32) for name in arrays}
    batch |= {"labels": jnp.asarray(labels), "example_weights": jnp.asarray(weights)}

    def model(*_: jax.Array, **__: jax.Array) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(jnp.asarray(logits))

    return float(task.loss_sums(model, batch, None) / task.loss_weights(batch))


WEIGHTS = (DRAW.random((4, 3)) < 0.7).astype(np.float32)


def test_the_loss_of_scores_is_torchs_mean_squared_error(tokenizer: TextTokenizer) -> None:
    logits, labels = DRAW.normal(size=(4, 3, 1)).astype(np.float32), DRAW.normal(size=(4, 3)).astype(np.float32)
    real = WEIGHTS > 0
    expected = torch.nn.functional.mse_loss(torch.tensor(logits[real][:, 0]), torch.tensor(labels[real]))
    assert loss(Regression(Config(), tokenizer), logits, labels, WEIGHTS) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_sets_is_torchs_binary_cross_entropy(tokenizer: TextTokenizer, smoothing: float) -> None:
    logits = DRAW.normal(size=(4, 3, 5)).astype(np.float32)
    labels = (DRAW.random((4, 3, 5)) < 0.4).astype(np.float32)
    real = WEIGHTS > 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[real]), torch.where(torch.tensor(labels[real]) > 0, 1 - smoothing / 2, smoothing / 2)
    )
    task = MultiLabel(Config(train=TrainSettings(label_smoothing=smoothing)), tokenizer, list("abcde"))
    assert loss(task, logits, labels, WEIGHTS) == pytest.approx(float(expected), rel=1e-6)


def test_metrics_of_scores_are_scipys(tokenizer: TextTokenizer) -> None:
    scores, truth = DRAW.normal(size=(40, 1)), DRAW.integers(0, 50, 40) / 10
    task = Regression(Config(), tokenizer)
    examples = task.examples(table(truth.tolist()))[0]
    found = task.metrics({}, {"logits": scores}, examples)
    assert found["loss"] == pytest.approx(mean_squared_error(truth, scores[:, 0]), abs=1e-12)
    assert found["pearson"] == pytest.approx(stats.pearsonr(scores[:, 0], truth)[0], abs=1e-12)
    assert found["spearman"] == pytest.approx(stats.spearmanr(scores[:, 0], truth)[0], abs=1e-9)
    constant = task.metrics({}, {"logits": np.ones((40, 1))}, examples)
    assert (constant["pearson"], constant["spearman"]) == (0.0, 0.0)


def test_metrics_of_sets_are_scikit_learns(tokenizer: TextTokenizer) -> None:
    logits, truth = DRAW.normal(size=(60, 4)), (DRAW.random((60, 4)) < 0.3).astype(np.float32)
    task = MultiLabel(Config(labels=LabelSettings(threshold=0.6)), tokenizer, list("abcd"))
    found = task.metrics({}, {"logits": logits}, split(truth))
    probabilities = torch.sigmoid(torch.tensor(logits)).numpy()
    guess = probabilities >= 0.6
    expected = np.mean([log_loss(truth[:, label], probabilities[:, label]) for label in range(4)])
    assert found["loss"] == pytest.approx(expected, abs=1e-9)
    assert found["micro_f1"] == pytest.approx(f1_score(truth, guess, average="micro"), abs=1e-9)
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"), abs=1e-9)
    assert found["subset_accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-9)


def test_a_single_label_is_judged_by_where_it_applies(tokenizer: TextTokenizer) -> None:
    logits, truth = DRAW.normal(size=(30, 1)), (DRAW.random((30, 1)) < 0.4).astype(np.float32)
    found = MultiLabel(Config(), tokenizer, ["toxic"]).metrics({}, {"logits": logits}, split(truth))
    expected = f1_score(truth[:, 0], logits[:, 0] >= 0)
    assert (found["micro_f1"], found["macro_f1"]) == pytest.approx((expected, expected), abs=1e-9)
    assert found["per_class"]["toxic"]["support"] == truth.sum()


def test_two_classes_are_judged_as_glue_does(tokenizer: TextTokenizer) -> None:
    logits, truth = DRAW.normal(size=(50, 2)), DRAW.integers(0, 2, 50).astype(np.int32)
    task = Classification(Config(train=TrainSettings(metric="f1")), tokenizer, ["no", "yes"])
    found = task.metrics({}, {"logits": logits}, split(truth))
    assert found["f1"] == pytest.approx(f1_score(truth, logits.argmax(1)), abs=1e-9)
    assert found["matthews_correlation"] == pytest.approx(matthews_corrcoef(truth, logits.argmax(1)), abs=1e-9)
    assert task.metric == "f1"
    with pytest.raises(UserError, match="macro_f1"):
        Classification(Config(train=TrainSettings(metric="f1")), tokenizer, ["a", "b", "c"])
    with pytest.raises(UserError, match="one of accuracy"):
        Classification(Config(train=TrainSettings(metric="bleu")), tokenizer, ["a", "b"])


def test_the_threshold_of_sets_is_the_best_there_is(tokenizer: TextTokenizer) -> None:
    for _ in range(20):
        probabilities = np.round(DRAW.random((15, 3)), 1)  # with ties
        truth = (DRAW.random((15, 3)) < 0.4).astype(np.float32)
        found = best_threshold(probabilities, truth)
        scores = [
            f1_score(truth, probabilities >= t, average="micro", zero_division=0) for t in np.arange(-0.05, 1, 0.1)
        ]
        assert f1_score(truth, probabilities >= found, average="micro") == pytest.approx(max(scores), abs=1e-12)
    task = MultiLabel(Config(), tokenizer, list("abc"))
    logits = np.array([[3.0, -3.0, 1.0], [-3.0, 3.0, -2.0]])
    task.calibrate({"logits": logits}, split(np.array([[1, 0, 0], [0, 1, 0]], np.float32)))
    again = MultiLabel.for_model(
        Config(), tokenizer, dataclasses.replace(SHAPE, id2label=dict(enumerate("abc")), facts=task.facts())
    )
    assert again.prediction({"logits": logits[0]})["labels"] == ["a"]
    told = MultiLabel(Config(labels=LabelSettings(threshold=0.6)), tokenizer, list("abc"))
    told.calibrate({"logits": logits}, split(np.array([[1, 0, 0], [0, 1, 0]], np.float32)))
    assert told.threshold == 0.6


def test_a_prediction_is_right_or_the_truth_is_told(tokenizer: TextTokenizer) -> None:
    one, several = Classification(Config(), tokenizer, ["a", "b"]), MultiLabel(Config(), tokenizer, ["a", "b"])
    assert one.verdict({"label": "a"}, table(["b", "a"]), 1) == "right"
    assert one.verdict({"label": "a"}, table(["b", "a"]), 0) == "it is b"
    assert several.verdict({"labels": ["b", "a"]}, table([("a", "b"), ()]), 0) == "right"
    assert several.verdict({"labels": ["b"]}, table([("a", "b"), ()]), 0) == "it has a, b"
    assert several.verdict({"labels": ["b"]}, table([("a", "b"), ()]), 1) == "it has none"


def confident(classes: list[int], certainty: list[float]) -> np.ndarray:
    """Logits whose largest probability, of three, is as given."""
    probabilities = np.full((len(classes), 3), 0.0)
    for row, (number, p) in enumerate(zip(classes, certainty, strict=True)):
        probabilities[row] = (1 - p) / 2
        probabilities[row, number] = p
    return np.log(np.maximum(probabilities, 1e-300))


def test_texts_out_of_scope_are_told_by_a_threshold_that_dev_sets(tokenizer: TextTokenizer) -> None:
    config = Config(labels=LabelSettings(out_of_scope="oos"))
    train = table(["a", "b", "c", "oos", "a"])
    task = Classification.for_training(config, tokenizer, train, SHAPE)
    assert task.labels == ["a", "b", "c"]
    examples, _ = task.examples(train, training=True)
    assert examples.targets["labels"].tolist() == [0, 1, 2, 0]
    assert train.skipped == {"out of scope": 1}
    dev, _ = task.examples(table(["a", "b", "oos", "c", "oos"]))
    logits = confident([0, 1, 2, 2, 1], [0.9, 0.8, 0.5, 0.7, 0.6])
    task.calibrate({"logits": logits}, dev)
    assert 0.6 < task.threshold < 0.7
    found = task.metrics({}, {"logits": logits}, dev)
    assert (found["accuracy"], found["in_scope_accuracy"], found["out_of_scope_recall"]) == (1.0, 1.0, 1.0)
    test, _ = task.examples(table(["a", "oos", "oos", "b"]))
    logits = confident([0, 1, 2, 0], [0.9, 0.5, 0.9, 0.5])
    found = task.metrics({}, {"logits": logits}, test)
    guess = ["a", "oos", "c", "oos"]
    assert found["accuracy"] == accuracy_score(["a", "oos", "oos", "b"], guess)
    expected = recall_score(["a", "oos", "oos", "b"], guess, labels=["oos"], average=None, zero_division=0)[0]
    assert found["out_of_scope_recall"] == expected
    again = Classification.for_model(
        config, tokenizer, dataclasses.replace(SHAPE, id2label=dict(enumerate("abc")), facts=task.facts())
    )
    assert [again.prediction({"logits": row})["label"] for row in logits] == guess


def test_the_threshold_out_of_scope_is_the_best_of_all_with_equal_confidences_too(tokenizer: TextTokenizer) -> None:
    config = Config(labels=LabelSettings(out_of_scope="oos"))
    for seed in range(20):
        draw = np.random.default_rng(seed)
        labels = [*draw.choice(["a", "b", "c", "oos"], 12), "oos"]
        task = Classification.for_training(config, tokenizer, table(["a", "b", "c"]), SHAPE)
        dev, _ = task.examples(table(labels))
        confidence = draw.choice([0.4, 0.5, 0.6, 1 - 1e-17], 13)  # the last one is 1 as a float64
        guess = draw.integers(0, 3, 13)
        logits = confident(guess.tolist(), confidence.tolist())
        task.calibrate({"logits": logits}, dev)
        found = task.metrics({}, {"logits": logits}, dev)["accuracy"]
        reachable = [
            np.mean(np.where(confidence < threshold, "oos", np.array(list("abc"))[guess]) == labels)
            for threshold in (0, 0.45, 0.55, 0.7, 2)
        ]
        assert found == pytest.approx(max(reachable)), seed


def test_a_label_out_of_scope_that_dev_lacks_is_an_error(tokenizer: TextTokenizer) -> None:
    config = Config(data=DataSettings(train="x", dev="y"), labels=LabelSettings(out_of_scope="oss"))
    validate(config)
    with pytest.raises(UserError, match=r"out_of_scope needs --data\.dev"):
        validate(dataclasses.replace(config, data=DataSettings(train="x")))
    task = Classification.for_training(config, tokenizer, table(["a", "b", "oos"]), SHAPE)
    task.examples(table(["a", "b", "oos"]), training=True)
    with pytest.raises(
        UserError, match=r"rows.tsv: no row is labelled 'oss' .* there are a, b, oos\. If every .* None"
    ):
        task.examples(table(["a", "oos", "b"]))


def test_an_unknown_label_is_told_what_is_out_of_scope(tokenizer: TextTokenizer) -> None:
    with pytest.raises(UserError, match=r"label 'ood' is none of the model's \(a, b, and out of scope: oos\)"):
        Classification(Config(), tokenizer, ["a", "b"], "oos").examples(table(["a", "ood"]))


def test_f1_is_refused_where_out_of_scope_is_a_third_class(tokenizer: TextTokenizer) -> None:
    config = Config(labels=LabelSettings(out_of_scope="oos"), train=TrainSettings(metric="f1"))
    with pytest.raises(UserError, match=r"f1 is for two classes; there are 2, and what is out of scope \(oos\)"):
        Classification(config, tokenizer, ["no", "yes"], "oos")


@pytest.mark.parametrize("pairs", [True, False])
def test_dev_is_pairs_where_train_is_and_only_there(tokenizer: TextTokenizer, pairs: bool) -> None:
    single = Table("single", ["a b"] * 2, None, ["no", "yes"], ["line 1", "line 2"])
    paired = dataclasses.replace(single, source="paired", pairs=["c", "d"])
    train, dev = (paired, single) if pairs else (single, paired)
    task = Classification(Config(), tokenizer, ["no", "yes"])
    task.examples(dev)  # of a model that was not trained here, nothing is known
    task.examples(train, training=True)
    task.examples(train)
    message = "single has single texts, and the training's data pairs" if pairs else "paired has pairs of texts, and"
    with pytest.raises(UserError, match=message):
        task.examples(dev)


def test_a_threshold_between_none_and_all_is_weighed_by_accuracy(tokenizer: TextTokenizer) -> None:
    """The chosen threshold is as good on dev as any other."""
    for _ in range(5):
        logits, truth = DRAW.normal(size=(40, 3)), DRAW.integers(-1, 3, 40).astype(np.int32)
        task = Classification(Config(), tokenizer, list("abc"), "oos")
        task.calibrate({"logits": logits}, split(truth))
        found = task.metrics({}, {"logits": logits}, split(truth))["accuracy"]
        for threshold in np.linspace(0, 1, 30):
            task.threshold = float(threshold)
            assert task.metrics({}, {"logits": logits}, split(truth))["accuracy"] <= found + 1e-12


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (MultiLabel, [("a",), ()], "only 'a'"),
        (MultiLabel, [(), ()], "there is none"),
        (Classification, ["a", "a"], "only 'a'"),
        (Classification, list("abcdefghij"), "each of 10 rows has a label of its own, such as 'a'"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(
    tokenizer: TextTokenizer, kind: type, labels: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        kind.for_training(Config(), tokenizer, table(labels), SHAPE)


def test_an_unknown_label_in_a_set_is_an_error_with_its_place_or_left_out(tokenizer: TextTokenizer) -> None:
    rows = table([("a",), ("b", "z"), ()])
    with pytest.raises(UserError, match=r"rows\.tsv, line 2: label 'z'"):
        MultiLabel(Config(), tokenizer, ["a", "b"]).examples(rows)
    skipping = Config(data=dataclasses.replace(Config().data, bad_rows="skip"))
    examples, _ = MultiLabel(skipping, tokenizer, ["a", "b"]).examples(rows)
    assert examples.targets["labels"].tolist() == [[1, 0], [0, 0]]
    assert examples.records.places == ["line 1", "line 3"]
    nameless, _ = MultiLabel(Config(), tokenizer, ["LABEL_0", "LABEL_1"]).examples(table([("1",), ("LABEL_0", "1")]))
    assert nameless.targets["labels"].tolist() == [[0, 1], [1, 1]]
