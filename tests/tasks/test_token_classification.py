"""Token classification, from sentences to scores: where the reference is seqeval's, torch's or transformers'."""

import dataclasses
import functools
import json
import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqeval.metrics
import torch
from flax import nnx
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers import BertConfig as TorchConfig
from transformers import BertForTokenClassification as TorchTagger

from jaxlm import cli
from jaxlm.config import Config, DataSettings, TagSettings, TrainSettings
from jaxlm.data.columns import Known
from jaxlm.data.loader import make_batches
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.data.words import WordTable, raw_texts, word_table
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForTokenClassification, TokenClassifierOutput
from jaxlm.tasks import TASKS, task_of
from jaxlm.tasks.entity_scores import accuracy, entity_scores
from jaxlm.tasks.token_classification import TokenClassification, tags_of

from ..data.test_tags import random_tags
from ..models.reference import assert_gradients_equal, flat_params, quick_jit, random_params
from .tagged import Tagged, as_table, make_tagged, run_on, write_conll, write_seq

TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model)


def make_task(
    name: str, tokenizer: TextTokenizer, table: WordTable, tiny_model: Path, **data: Any
) -> tuple[Any, BertConfig]:
    stage = Config(task=name, data=DataSettings(**data), tags=TagSettings(intent_weight=0.5))
    shape = dataclasses.replace(BertConfig.from_json(tiny_model / "config.json"), **DROPOUT)
    task = TASKS[name].for_training(stage, tokenizer, table, shape)
    return task, task.configure(shape)


def test_scores_are_seqevals_whatever_the_tags() -> None:
    draw = random.Random(3)
    for _ in range(60):
        truth = [random_tags(draw) for _ in range(40)]
        guess = [[draw.choice([tag, *random_tags(draw), "O"]) for tag in tags] for tags in truth]
        overall, by_type = entity_scores(truth, guess)
        for name in ("precision", "recall", "f1"):
            expected = getattr(seqeval.metrics, f"{name}_score")(truth, guess)
            assert overall[name] == pytest.approx(expected, abs=1e-9)
        assert accuracy(truth, guess) == pytest.approx(seqeval.metrics.accuracy_score(truth, guess), abs=1e-9)
        report = seqeval.metrics.classification_report(truth, guess, output_dict=True, zero_division=0)
        for kind, scores in by_type.items():
            assert scores["f1"] == pytest.approx(report[kind]["f1-score"], abs=1e-9)
            assert scores["precision"] == pytest.approx(report[kind]["precision"], abs=1e-9)
            assert scores["recall"] == pytest.approx(report[kind]["recall"], abs=1e-9)
            assert scores["support"] == report[kind]["support"]


def test_scores_of_nothing_are_0() -> None:
    assert entity_scores([["O"]], [["O"]]) == ({"precision": 0.0, "recall": 0.0, "f1": 0.0}, {})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy_over_labelled_tokens(tokenizer: TextTokenizer, smoothing: float) -> None:
    draw = np.random.default_rng(0)
    logits, targets = draw.normal(size=(3, 8, 5)).astype(np.float32), draw.integers(0, 6, (3, 8))
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits).flatten(0, 1), torch.tensor(targets).flatten() - 1, ignore_index=-1, reduction="sum",
        label_smoothing=smoothing,
    )  # fmt: skip
    task = TokenClassification(Config(train=TrainSettings(label_smoothing=smoothing)), tokenizer, TAGS)
    names = ("input_ids", "token_type_ids", "positions", "segment_ids", "example_ids")
    batch = dict.fromkeys(names) | {"tags": jnp.asarray(targets)}

    def model(*_: Any, **__: Any) -> TokenClassifierOutput:
        return TokenClassifierOutput(jnp.asarray(logits))

    assert float(task.loss_sums(model, batch, None)) == pytest.approx(float(expected), rel=1e-6)


def test_the_first_token_of_each_word_is_labelled_and_no_other(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    words = ["unheard-of", "film", "\u200b", "paris"]
    assert all(len(tokenizer.tokenize_words([word])[word]) > 1 for word in ("unheard-of", "paris"))
    table = as_table([Tagged(words, ["B-PER", "O", "O", "B-LOC"], "")])
    task, _ = make_task("token_classification", tokenizer, table, tiny_model)
    assert task.tags == ["O", "B-LOC", "B-PER"]
    examples, _ = task.examples(table)
    owners = AutoTokenizer.from_pretrained(tiny_model)(words, is_split_into_words=True).word_ids()
    expected = np.zeros(len(owners), int)
    for word, tag in ((0, 3), (1, 1), (3, 2)):  # tag n is n + 1
        expected[owners.index(word)] = tag
    assert examples.token_targets["tags"].tolist() == expected.tolist()


def outputs_of(task: Any, table: WordTable, tags: list[list[str]]) -> tuple[dict[str, np.ndarray], Any]:
    """What an evaluation would collect if the model gave these tags; and nonsense to all other tokens."""
    examples, _ = task.examples(table)
    best = np.full(examples.offsets[-1], len(task.tags) - 1)
    flat = [task.tags.index(tag) for sentence in tags for tag in sentence]
    for token, number in zip(examples.records.first_token, flat, strict=True):
        if token >= 0:
            best[token] = number
    return {"tag": best, "tag_probability": np.full(len(best), 0.75, np.float32)}, examples


def test_a_word_without_tokens_does_not_part_an_entity(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    """KLUE's words are characters, and spaces within names have the name's tag."""
    words, tags = ["film", " ", "a", " ", "film", " "], ["B-PER", "I-PER", "I-PER", "O", "B-PER", "O"]
    table = as_table([Tagged(words, tags, "")])
    task, _ = make_task("token_classification", tokenizer, table, tiny_model)
    outputs, examples = outputs_of(task, table, [tags])
    (found,) = task.predictions(outputs, examples)
    assert (found["words"], found["tags"]) == (words, tags)
    assert [(entity["text"], entity["probability"]) for entity in found["entities"]] == [
        ("film   a", 0.75),
        ("film", 0.75),
    ]


def test_long_sentences_are_read_in_windows_and_no_word_is_lost(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    rows = make_tagged(5, 0)
    long = run_on(rows, "")
    table = as_table([rows[0], long])
    task, _ = make_task("token_classification", tokenizer, table, tiny_model, max_length=16)
    outputs, examples = outputs_of(task, table, [rows[0].tags, long.tags])
    assert len(examples) > 4
    assert examples.lengths.max() <= 16
    assert any("1 sentences of more than 16 tokens read in overlapping windows" in note for note in examples.remarks)
    assert (examples.token_targets["tags"] > 0).sum() == len(rows[0].words) + len(long.words)
    found = list(task.predictions(outputs, examples))
    assert [prediction["tags"] for prediction in found] == [rows[0].tags, long.tags]
    metrics = task.metrics({"tag_loss": 6.0, "tag_weight": 3.0}, outputs, examples)
    assert (metrics["loss"], metrics["f1"], metrics["accuracy"], metrics["examples"]) == (2.0, 1.0, 1.0, 2)


def test_tags_that_never_occur_in_train_count_as_missed(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    task, _ = make_task("token_classification", tokenizer, as_table(make_tagged(20, 0)), tiny_model)
    truth = [["B-PER", "O", "B-ORG"], ["O", "B-PER"]]
    table = as_table([Tagged(["film"] * len(tags), tags, "") for tags in truth])
    guess = [["B-PER", "O", "O"], ["O", "B-LOC"]]
    outputs, examples = outputs_of(task, table, guess)
    assert (examples.token_targets["tags"] > 0).sum() == 4
    metrics = task.metrics({"tag_loss": 1.0, "tag_weight": 4.0}, outputs, examples)
    assert metrics["recall"] == pytest.approx(1 / 3)
    assert metrics["f1"] == pytest.approx(seqeval.metrics.f1_score(truth, guess))
    assert metrics["per_class"]["ORG"]["support"] == 1
    assert "tags unknown to the model, counted as missed: B-ORG" in examples.remarks
    with pytest.raises(UserError, match="the model knows none of its tags"):
        task.examples(as_table([Tagged(["film"], ["B-ORG"], "")]))


@pytest.mark.parametrize("name", ["token_classification", "intent_slots"])
def test_a_model_of_another_scheme_is_right_where_its_entities_are(
    tokenizer: TextTokenizer, tiny_model: Path, name: str
) -> None:
    task, _ = make_task(name, tokenizer, as_table(make_tagged(20, 0), intents=name == "intent_slots"), tiny_model)
    truth = [["B-PER", "I-PER", "O"], ["B-PER"]]
    table = as_table([Tagged(["film"] * len(tags), tags, "tell") for tags in truth], intents=name == "intent_slots")
    known, task.tags = task.tags, ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    outputs, examples = outputs_of(task, table, [["B-PER", "E-PER", "O"], ["S-PER"]])
    assert known != task.tags
    task.foreign = True
    outputs |= {"intent": np.array([1, 1]), "intent_probability": np.full(2, 0.5)}
    sums = {f"{kind}_{what}": 1.0 for kind in ("tag", "intent") for what in ("loss", "weight")}
    metrics = task.metrics(sums, outputs, examples)
    if name == "intent_slots":
        assert metrics["frame_accuracy"] == 1.0
    accuracy = "slot_accuracy" if name == "intent_slots" else "accuracy"
    assert metrics[accuracy] == 1.0
    task.foreign = False  # trained here, a model knows IOB2 alone, and other tags are wrong
    assert task.metrics(sums, outputs, examples)[accuracy] == 0.5


def test_predictions_are_entities_with_exact_offsets(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    task, _ = make_task("token_classification", tokenizer, as_table(make_tagged(20, 0)), tiny_model)
    text = " Ne\u0301e Ada \u200b 北京!"
    table = word_table("--text", raw_texts([text]), "error", tags=False, intents=False)
    assert table.words == [["Ne\u0301e", "Ada", "\u200b", "北", "京", "!"]]
    outputs, examples = outputs_of(task, table, [["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]])
    spoken = examples.records.first_token[[0, 1, 3, 4]]
    outputs["tag_probability"][spoken] = [1.0, 0.5, 0.25, 0.5]
    (found,) = task.predictions(outputs, examples)
    assert found["entities"] == [
        {"type": "PER", "text": "Ne\u0301e Ada", "start": 1, "end": 9, "probability": 0.75},
        {"type": "LOC", "text": "北京", "start": 12, "end": 14, "probability": 0.375},
    ]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found["entities"])
    assert found["tags"] == ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]  # \u200b has no token: O
    json.dumps(found)


def test_a_model_remembers_how_its_windows_overlap(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    table = as_table([run_on(make_tagged(5, 0), "")])
    task, config = make_task("token_classification", tokenizer, table, tiny_model, max_length=16)
    wider = TokenClassification(dataclasses.replace(task.stage, tags=TagSettings(overlap=0.75)), tokenizer, task.tags)
    assert len(wider.examples(table)[0]) > len(task.examples(table)[0])
    config = dataclasses.replace(config, facts=wider.facts())
    again = TokenClassification.for_model(task.stage, tokenizer, config)
    assert len(again.examples(table)[0]) == len(wider.examples(table)[0])


def test_a_model_with_tags_in_another_form_says_them_in_the_usual_one(
    tokenizer: TextTokenizer, tiny_model: Path, tmp_path: Path
) -> None:
    own = ["O", "B_LOC", "B_PER", "I_PER"]
    config = dataclasses.replace(BertConfig.from_json(tiny_model / "config.json"), id2label=dict(enumerate(own)))
    task = TokenClassification.for_model(Config(task="token_classification"), tokenizer, config)
    path = tmp_path / "a.conll"
    path.write_text("good B_PER\nfilm I_PER\nthis O\n\nbad B_PER\n")
    table = task.read(str(path), "test", DataSettings(), known=Known(own))
    guess = [["B-PER", "I-PER", "O"], ["B-LOC"]]
    outputs, examples = outputs_of(task, table, guess)
    assert [found["tags"] for found in task.predictions(outputs, examples)] == guess
    metrics = task.metrics({"tag_loss": 1.0, "tag_weight": 1.0}, outputs, examples)
    assert (metrics["accuracy"], metrics["per_class"]["PER"]["support"]) == (0.75, 2)
    assert tags_of(table, config, new_head=False) == ["O", "B-LOC", "B-PER", "I-PER"]


def test_a_tagger_trained_further_keeps_its_tags_unless_a_new_head_is_asked_for(tiny_model: Path) -> None:
    own = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-ORG"]  # in an order of its own
    shape = dataclasses.replace(BertConfig.from_json(tiny_model / "config.json"), id2label=dict(enumerate(own)))
    table = as_table(make_tagged(20, 0))
    assert tags_of(table, shape, new_head=False) == own
    assert tags_of(table, shape, new_head=True) == TAGS
    fewer = dataclasses.replace(shape, id2label=dict(enumerate(own[:4])))  # I-LOC is not among them
    assert tags_of(table, fewer, new_head=False) == TAGS


@pytest.mark.parametrize(
    ("guess", "verdict"),
    [
        (["B-PER", "O", "B-LOC"], "right"),
        (["B-PER", "O", "O"], "it has PER 'good', LOC 'bad'"),
    ],
)
def test_a_prediction_is_right_or_the_truth_is_told(
    tokenizer: TextTokenizer, tiny_model: Path, guess: list[str], verdict: str
) -> None:
    table = as_table([Tagged(["good", "film", "bad"], ["B-PER", "O", "B-LOC"], "")])
    task, _ = make_task("token_classification", tokenizer, table, tiny_model)
    assert task.verdict({"tags": guess}, table, 0) == verdict


def test_sentences_without_any_entity_are_no_training_data(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    with pytest.raises(UserError, match="all tags are O"):
        make_task("token_classification", tokenizer, as_table([Tagged(["a"], ["O"], "")]), tiny_model)


@functools.partial(quick_jit, static_argnums=(0, 1))
def loss_and_gradients(task: Any, graphdef: nnx.GraphDef, params: Any, batch: Any, key: Any) -> tuple[Any, Any]:
    def loss(params: Any) -> jax.Array:
        return (task.loss_sums(nnx.merge(graphdef, params), batch, key) / task.loss_weights(batch)).sum()

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("name", ["token_classification", "intent_slots"])
def test_packed_loss_and_gradients_equal_unpacked_with_dropout(
    name: str, tokenizer: TextTokenizer, tiny_model: Path
) -> None:
    table = as_table(make_tagged(7, 1), intents=name == "intent_slots")
    task, config = make_task(name, tokenizer, table, tiny_model, max_length=12)
    config = dataclasses.replace(config, num_hidden_layers=1)
    examples, _ = task.examples(table, training=True)
    assert len(examples) > len(table)  # some are windows
    graphdef, params = task.model_class.abstract(config)[0], random_params(task.model_class, config)
    params = jax.tree.map(lambda x: x / 3, params)
    results = []
    for row_length, rows in ((12, len(examples)), (40, None)):
        batches = make_batches(
            examples, batch_size=len(examples), steps=1, seed=4, row_length=row_length, hidden_size=16,
            row_multiple=rows or 1, finish=lambda batch, step: batch,
        )  # fmt: skip
        batch = batches(0)
        assert (batch["segment_ids"].max() > 1) == (rows is None)
        results.append(loss_and_gradients(task, graphdef, params, batch, jax.random.key(2)))
    (expected, gradients), (found, packed_gradients) = results
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert_gradients_equal(flat_params(packed_gradients), flat_params(gradients), 1e-5)


def test_the_saved_directory_opens_in_transformers_with_equal_logits(
    tokenizer: TextTokenizer, tiny_model: Path, tmp_path: Path
) -> None:
    task, config = make_task("token_classification", tokenizer, as_table(make_tagged(20, 0)), tiny_model)
    tokenizer.save(tmp_path, max_length=64)
    task.save(tmp_path, config, random_params(task.model_class, config))
    reference = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    assert list(reference.config.id2label.values()) == TAGS
    inputs = AutoTokenizer.from_pretrained(tmp_path)("a brilliant film", return_tensors="pt")
    found = BertForTokenClassification.from_pretrained(tmp_path)(inputs["input_ids"].numpy()).logits
    with torch.no_grad():
        np.testing.assert_allclose(found, reference(**inputs).logits.numpy(), atol=1e-4, rtol=0)
    served = task_of(tmp_path, BertConfig.from_json(tmp_path / "config.json"))
    assert served is TokenClassification


def test_a_tagger_of_the_hub_is_recognised_by_its_architecture(tmp_path: Path) -> None:
    labels = dict(enumerate(["O", "PER", "B-LOC"]))
    shape = TorchConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, id2label=labels
    )
    TorchTagger(shape).save_pretrained(tmp_path)
    config = BertConfig.from_json(tmp_path / "config.json")
    assert task_of(tmp_path, config) is TokenClassification


# The command line.

SETTINGS = {
    "model.hidden_size": 16, "model.num_hidden_layers": 1, "model.num_attention_heads": 2, "model.hidden_dropout": 0,
    "model.attention_dropout": 0, "model.initializer_range": 0.2, "train.steps": 40, "train.batch_size": 16,
    "train.eval_every": 40, "optim.learning_rate": 1e-2, "data.max_length": 48, "mesh.devices": 2,
}  # fmt: skip
PRESET = "from jaxlm.config import Config\nconfig = Config(task={task!r})\n"


def train(folder: Path, task: str, tokenizer: Path, **data: Path) -> Path:
    (folder / "preset.py").write_text(PRESET.format(task=task))
    settings = SETTINGS | {"data.tokenizer": tokenizer, "workdir": folder / "run"}
    settings |= {f"data.{name}": path for name, path in data.items()}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    assert cli.main(["train", str(folder / "preset.py"), *flags]) == 0
    return folder / "run"


def test_a_tagger_is_trained_evaluated_and_used_from_the_command_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = make_tagged(30, 2)
    unknown = held_out[0]._replace(tags=["B-ORG", *held_out[0].tags[1:]])
    test = write_conll(tmp_path / "eng.testb", [unknown, *held_out[1:]])
    data = {
        "train": write_conll(tmp_path / "eng.train", make_tagged(200, 1)),
        "dev": write_conll(tmp_path / "eng.testa", held_out),
    }
    run = train(tmp_path, "token_classification", tiny_model, test=test, **data)
    said = capsys.readouterr().out
    assert "tags in IOB2" in said
    assert "tags unknown to the model, counted as missed: B-ORG" in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary["dev"]["f1"] == 1.0
    assert summary["test"]["recall"] < 1.0
    assert (
        cli.main(["evaluate", str(run / "model"), "--data.test", str(test), "--output", str(tmp_path / "m.json")]) == 0
    )
    printed = capsys.readouterr()
    assert "ORG" in printed.out
    assert "tags unknown to the model, counted as missed: B-ORG" in printed.err
    assert json.loads((tmp_path / "m.json").read_text())["f1"] == pytest.approx(summary["test"]["f1"], abs=1e-9)
    text = "a film with  good brilliant, of bad!"
    assert cli.main(["predict", str(run / "model"), "--text", text]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(entity["type"], entity["text"]) for entity in found["entities"]] == [
        ("PER", "good brilliant"),
        ("LOC", "bad"),
    ]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found["entities"])
    reference = AutoModelForTokenClassification.from_pretrained(run / "model").eval()
    inputs = AutoTokenizer.from_pretrained(run / "model")(found["words"], is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        best = reference(**inputs).logits[0].argmax(-1).tolist()
    owners = inputs.word_ids()
    assert found["tags"] == [reference.config.id2label[best[owners.index(word)]] for word in range(len(found["words"]))]
    assert cli.main(["predict", str(run / "model"), "--text", "a", "--text_pair", "b"]) == 2
    assert "reads single sentences" in capsys.readouterr().err


def test_columns_of_a_conll_file_need_not_be_told_again(tiny_model: Path, tmp_path: Path) -> None:
    """The first and the last column would be read else."""
    columns = tmp_path / "columns.conll"
    sentences = [zip(item.words, item.tags, strict=True) for item in make_tagged(20, 1)]
    columns.write_text("\n".join("".join(f"x\t{word}\t{tag}\tO\n" for word, tag in pairs) for pairs in sentences))
    (tmp_path / "preset.py").write_text(PRESET.format(task="token_classification"))
    flags = ["--model.init", str(tiny_model), "--data.train", str(columns), "--data.words", "1", "--data.tags", "2"]
    flags += ["--data.max_length", "32", "--train.steps", "1", "--workdir", str(tmp_path / "run")]
    assert cli.main(["train", str(tmp_path / "preset.py"), *flags]) == 0
    model, output = str(tmp_path / "run" / "model"), tmp_path / "output"

    def said(verb: str, *flags: str) -> str:
        assert cli.main([verb, model, *flags, "--output", str(output)]) == 0
        return output.read_text()

    told = said("evaluate", "--data.test", str(columns), "--data.words", "1", "--data.tags", "2")
    assert said("evaluate", "--data.test", str(columns)) == told
    words = [json.loads(line)["words"] for line in said("predict", "--input", str(columns)).splitlines()]
    assert words == [item.words for item in make_tagged(20, 1)]
    other = write_conll(tmp_path / "other.conll", make_tagged(20, 1))  # has two columns
    words = [json.loads(line)["words"] for line in said("predict", "--input", str(other)).splitlines()]
    assert words == [item.words for item in make_tagged(20, 1)]


def test_wrong_settings_and_directories_are_one_clear_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "preset.py").write_text(PRESET.format(task="token_classification"))
    (tmp_path / "void").mkdir()
    seq, conll = write_seq(tmp_path / "seq", make_tagged(3, 0)), write_conll(tmp_path / "a.conll", make_tagged(3, 0))
    cases = {
        ("--tags.overlap", "1", conll): "--tags.overlap is 1.0; it must be between 0 and 0.9",
        ("--tags.intent_weight", "-1", conll): "--tags.intent_weight is -1.0",
        ("--data.tags", "7", conll): "--data.tags 7: there are 2 columns",
        ("--task", "intent_slots", conll): "no place for intents",
        ("--task", "classification", seq): "a directory that prepare did not write",
        ("--seed", "1", tmp_path / "void"): "is a directory without seq.in",
    }
    for (flag, value, train_data), message in cases.items():
        command = ["train", str(tmp_path / "preset.py"), "--data.train", str(train_data), flag, value]
        command += ["--model.init", str(tiny_model), "--workdir", str(tmp_path / "run"), "--data.max_length", "32"]
        assert cli.main(command) == 2, flag
        error = capsys.readouterr().err
        assert message in error, flag
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()
