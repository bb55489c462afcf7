"""Tags that mark no entities, such as parts of speech: the reference is scikit-learn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from jaxlm import cli
from jaxlm.config import Config, TrainSettings
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.data.words import WordTable, raw_texts, word_table
from jaxlm.errors import UserError
from jaxlm.models import BertConfig
from jaxlm.tasks.token_classification import TokenClassification

from ..models.reference import random_params
from .tagged import Tagged, as_table
from .test_token_classification import make_task, outputs_of

TRUTH = [["DET", "NOUN", "VERB"], ["NOUN", "VERB", "ADJ", "NUM"], ["DET", "NOUN"]]
GUESS = [["DET", "VERB", "VERB"], ["NOUN", "NOUN", "ADJ", "DET"], ["DET", "NOUN"]]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model)


def sentences(tags: list[list[str]]) -> WordTable:
    return as_table([Tagged(["film"] * len(of), of, "") for of in tags])


@pytest.fixture
def made(tokenizer: TextTokenizer, tiny_model: Path) -> tuple[Any, BertConfig]:
    """The task of TRUTH without NUM, and its model's config."""
    return make_task("token_classification", tokenizer, sentences([TRUTH[0], TRUTH[1][:3]]), tiny_model)


def test_words_are_judged_one_by_one_as_scikit_learn_does(made: tuple[Any, BertConfig]) -> None:
    task, _ = made
    assert (task.flat, task.tags, task.metric) == (True, ["ADJ", "DET", "NOUN", "VERB"], "accuracy")
    table = sentences(TRUTH)
    table.words[2][1] = "\u200b"  # has no token: whatever the model says, the word gets no tag
    outputs, examples = outputs_of(task, table, GUESS)
    metrics = task.metrics({"tag_loss": 3.0, "tag_weight": 6.0}, outputs, examples)
    truth, guess = ([tag for tags in side for tag in tags] for side in (TRUTH, GUESS))
    guess[-1] = ""
    kinds = sorted({*truth, *guess} - {""})
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-9)
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, guess, labels=kinds, average="macro", zero_division=0))
    assert (metrics["loss"], metrics["words"], metrics["examples"]) == (0.5, 9, 3)
    columns = precision_recall_fscore_support(truth, guess, labels=kinds, zero_division=0)
    assert list(metrics["per_class"]) == kinds
    for kind, *expected in zip(kinds, *columns, strict=True):
        assert list(metrics["per_class"][kind].values()) == pytest.approx(expected, abs=1e-9)
    assert "f1" not in metrics
    assert "tags unknown to the model, counted as missed: NUM" in examples.remarks


def test_predictions_are_words_with_tags_and_exact_offsets_and_neighbours_stay_apart(
    made: tuple[Any, BertConfig],
) -> None:
    task, _ = made
    text = " Ada \u200b films!"
    table = word_table("--text", raw_texts([text]), "error", tags=False, intents=False)
    outputs, examples = outputs_of(task, table, [["NOUN", "NOUN", "NOUN", "ADJ"]])
    (found,) = task.predictions(outputs, examples)
    assert found["words"] == ["Ada", "\u200b", "films", "!"]
    assert found["tags"] == ["NOUN", None, "NOUN", "ADJ"]  # \u200b has no token
    assert found["tagged"][2] == {"tag": "NOUN", "text": "films", "start": 7, "end": 12, "probability": 0.75}
    assert all(text[item["start"] : item["end"]] == item["text"] for item in found["tagged"])
    assert task.summary(found).startswith("Ada/NOUN ")
    assert task.verdict(found | {"tags": ["DET", "VERB", "VERB"]}, sentences(TRUTH), 0) == "2 of 3 words are right"


def test_a_metric_of_entities_is_refused_and_one_of_words_taken(tokenizer: TextTokenizer) -> None:
    def task(metric: str, flat: bool) -> TokenClassification:
        return TokenClassification(Config(train=TrainSettings(metric=metric)), tokenizer, ["A", "B"], flat=flat)

    assert task("macro_f1", True).metric == "macro_f1"
    with pytest.raises(UserError, match="f1; tags without B- and I- are judged by accuracy, macro_f1 or loss"):
        task("f1", True)
    with pytest.raises(UserError, match="macro_f1; entities, by f1"):
        task("macro_f1", False)


def test_tags_that_are_all_the_same_are_no_training_data(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    with pytest.raises(UserError, match="all tags are NOUN"):
        make_task("token_classification", tokenizer, sentences([["NOUN", "NOUN"]]), tiny_model)


def test_o_is_a_tag_of_words_to_a_model_that_learnt_it_so(tokenizer: TextTokenizer, tiny_model: Path) -> None:
    train = sentences([["O", "VERB", "VERB"], ["O", "VERB"]])
    task, config = make_task("token_classification", tokenizer, train, tiny_model)
    again = TokenClassification.for_model(Config(), tokenizer, dataclasses.replace(config, facts=task.facts()))
    assert (again.flat, again.tags, again.metric) == (True, ["O", "VERB"], "accuracy")
    few = sentences([["O", "O", "VERB"]])  # read as types of entities, by itself
    examples, _ = again.examples(few)
    assert (few.flat, examples.records.table.flat, examples.records.table.tags) == (False, True, [["O", "O", "VERB"]])
    entities, _ = make_task("token_classification", tokenizer, sentences([["O", "B-PER"]]), tiny_model)
    with pytest.raises(UserError, match="the model knows none of its tags"):
        entities.examples(train)


def test_a_saved_tagger_is_used_from_the_command_line(
    made: tuple[Any, BertConfig], tokenizer: TextTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, config = made
    model = tmp_path / "model"
    tokenizer.save(model, max_length=64)
    task.save(model, config, random_params(task.model_class, config))
    assert cli.main(["predict", str(model), "--text", "a film.", "--mesh.devices", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["text"] for item in found["tagged"]] == ["a", "film", "."]
    file = tmp_path / "test.conll"
    file.write_text("".join(f"{word} {tag}\n" for word, tag in zip(found["words"], found["tags"], strict=True)))
    assert cli.main(["evaluate", str(model), "--data.test", str(file), "--mesh.devices", "1"]) == 0
    said = capsys.readouterr().out
    assert "accuracy: 1\n" in said
    assert found["tags"][0] in said
