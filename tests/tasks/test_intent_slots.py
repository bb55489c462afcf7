"""Joint intents and slots: both heads learn, both halves open in transformers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import seqeval.metrics
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from jaxlm import cli
from jaxlm.config import TrainSettings
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForIntentAndSlots, IntentAndSlotsOutput
from jaxlm.models.config import CheckpointError
from jaxlm.tasks import task_of
from jaxlm.tasks.intent_slots import IntentAndSlots

from ..models.reference import random_params
from .tagged import Tagged, as_table, make_tagged, run_on, write_seq
from .test_token_classification import TAGS, make_task, outputs_of, train


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model)


@pytest.fixture(scope="module")
def made(tokenizer: TextTokenizer, tiny_model: Path) -> tuple[Any, BertConfig]:
    """The task, and its model's config."""
    return make_task("intent_slots", tokenizer, as_table(make_tagged(30, 0), intents=True), tiny_model, max_length=16)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_torchs_of_tags_and_of_intents_weighted(made: tuple[Any, BertConfig], smoothing: float) -> None:
    task, _ = made
    given = dataclasses.replace(task.stage, train=TrainSettings(label_smoothing=smoothing))
    task = type(task)(given, task.tokenizer, task.tags, task.intent_names)
    draw = np.random.default_rng(0)
    intents, slots = draw.normal(size=(2, 3, 2)).astype(np.float32), draw.normal(size=(2, 8, 5)).astype(np.float32)
    wanted, tags = np.array([[1, 2, 0], [2, 0, 0]]), draw.integers(0, 6, (2, 8))
    names = ("input_ids", "token_type_ids", "positions", "segment_ids", "pool_positions", "example_ids")
    batch = {name: jnp.zeros((2, 8), jnp.int32) for name in names} | {"intents": wanted, "tags": jnp.asarray(tags)}
    batch["intents"] = jnp.asarray(wanted)

    def model(*_: Any, **__: Any) -> IntentAndSlotsOutput:
        return IntentAndSlotsOutput(jnp.asarray(intents), jnp.asarray(slots))

    def reference(logits: np.ndarray, targets: np.ndarray, smoothing: float = smoothing) -> float:
        logits, targets = torch.tensor(logits).flatten(0, 1), torch.tensor(targets).flatten() - 1
        loss = torch.nn.functional.cross_entropy
        return float(loss(logits, targets, ignore_index=-1, label_smoothing=smoothing))

    assert task.loss_weights(batch).tolist() == [(tags > 0).sum(), 3]
    values = (task.loss_sums(model, batch, None) / task.loss_weights(batch)).tolist()
    losses = dict(zip(task.loss_names, values, strict=True))
    assert losses["slots"] == pytest.approx(reference(slots, tags), rel=1e-6)
    assert losses["intents"] == pytest.approx(0.5 * reference(intents, wanted), rel=1e-6)  # tags.intent_weight
    sums = {name: float(value) for name, value in task.evaluate(model, batch).sums.items()}
    assert sums["intent_loss"] / sums["intent_weight"] == pytest.approx(reference(intents, wanted, 0.0), rel=1e-6)


def test_the_first_window_of_a_sentence_learns_its_intent(made: tuple[Any, BertConfig]) -> None:
    task, _ = made
    rows = make_tagged(4, 5)
    long = run_on(rows, "tell")
    examples, _ = task.examples(as_table([long, rows[0]._replace(intent="ask"), long], intents=True))
    first = [examples.record.tolist().index(row) for row in range(3)]
    assert first[1] > 2
    expected = np.zeros(len(examples), int)
    expected[first] = [2, 1, 2]  # intent n is n + 1: ask, tell
    assert examples.targets["intents"].tolist() == expected.tolist()


def test_unseen_intents_and_tags_are_errors_that_crash_nothing(made: tuple[Any, BertConfig]) -> None:
    task, _ = made
    truth = [Tagged(["film", "good"], ["O", "B-PER"], "tell"), Tagged(["film"], ["O"], "never"),
             Tagged(["film", "bad"], ["O", "B-NEW"], "ask"), Tagged(["film"], ["O"], "tell")]  # fmt: skip
    table = as_table(truth, intents=True)
    guess = [["O", "B-PER"], ["O"], ["O", "O"], ["O"]]
    outputs, examples = outputs_of(task, table, guess)
    outputs |= {"intent": np.array([1, 1, 0, 0]), "intent_probability": np.full(4, 0.5)}
    metrics = task.metrics({"tag_loss": 2, "tag_weight": 2, "intent_loss": 3, "intent_weight": 3}, outputs, examples)
    assert metrics["intent_accuracy"] == 0.5
    assert metrics["frame_accuracy"] == 0.25
    assert metrics["slot_f1"] == pytest.approx(seqeval.metrics.f1_score([row.tags for row in truth], guess))
    assert metrics["loss"] == 1.5
    assert "intents unknown to the model, counted as errors: never" in examples.remarks
    with pytest.raises(UserError, match="none of its intents"):
        task.examples(as_table([truth[1]], intents=True))


def test_one_intent_alone_is_nothing_to_learn(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    table = as_table([row._replace(intent="tell") for row in make_tagged(5, 0)], intents=True)
    with pytest.raises(UserError, match="there is only 'tell'"):
        make_task("intent_slots", tokenizer, table, tiny_model)


def test_the_saved_directory_loads_again_and_its_halves_open_in_transformers_with_equal_logits(
    made: tuple[Any, BertConfig], tmp_path: Path
) -> None:
    task, config = made
    task.tokenizer.save(tmp_path, max_length=16)
    task.save(tmp_path, config, random_params(BertForIntentAndSlots, config))
    read = BertConfig.from_json(tmp_path / "config.json")
    assert task_of(tmp_path, read) is IntentAndSlots
    assert (list(read.id2label.values()), list(read.id2intent.values())) == (TAGS, ["ask", "tell"])
    inputs = AutoTokenizer.from_pretrained(tmp_path / "slots")("a brilliant film", return_tensors="pt")
    intents, slots = BertForIntentAndSlots.from_pretrained(tmp_path)(inputs["input_ids"].numpy())
    halves = {
        "intent": (AutoModelForSequenceClassification, intents, ["ask", "tell"]),
        "slots": (AutoModelForTokenClassification, slots, TAGS),
    }
    for folder, (kind, found, labels) in halves.items():
        model, report = kind.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert list(model.config.id2label.values()) == labels
        with torch.no_grad():
            np.testing.assert_allclose(found, model.eval()(**inputs).logits.numpy(), atol=1e-4, rtol=0)
        AutoTokenizer.from_pretrained(tmp_path / folder)
    broken = json.loads((tmp_path / "config.json").read_text()) | {"id2intent": {"1": "ask"}}
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(CheckpointError, match="id2intent numbers its classes"):
        BertConfig.from_json(tmp_path / "config.json")


def test_joint_training_from_the_command_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = make_tagged(30, 2)
    unseen = [held_out[0]._replace(intent="never"), *held_out[1:]]
    for name, rows in (("train", make_tagged(200, 1)), ("valid", held_out), ("test", unseen)):
        write_seq(tmp_path / "data" / name, rows)
    data = dict.fromkeys(("train", "dev", "test"), tmp_path / "data")
    run = train(tmp_path, "intent_slots", tiny_model, **data)
    said = capsys.readouterr().out
    assert "intents unknown to the model, counted as errors: never" in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary["dev"]["frame_accuracy"] > 0.9, said
    assert summary["test"]["intent_accuracy"] <= 1 - 1 / 30
    command = [
        "evaluate",
        str(run / "model"),
        "--data.test",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "m.json"),
    ]
    assert cli.main(command) == 0
    assert "PER" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "m.json").read_text())
    for name in ("slot_f1", "intent_accuracy", "frame_accuracy"):
        assert metrics[name] == pytest.approx(summary["test"][name], abs=1e-9)
    assert cli.main(["predict", str(run / "model"), "--input", str(tmp_path / "data" / "test")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 30
    assert cli.main(["predict", str(run / "model"), "--text", "this film story  good"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["intent"] == "ask"
    assert [(slot["type"], slot["text"], slot["start"]) for slot in found["slots"]] == [("PER", "good", 17)]
    inputs = AutoTokenizer.from_pretrained(run / "model")("this film story  good", return_tensors="pt")
    intent = AutoModelForSequenceClassification.from_pretrained(run / "model" / "intent").eval()
    with torch.no_grad():
        probability = intent(**inputs).logits.softmax(-1).max()
    assert found["probability"] == pytest.approx(float(probability), abs=1e-5)
