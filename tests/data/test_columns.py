"""Which column serves what, where names or settings leave doubt: nothing is read twice, or in another's place."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import DataSettings
from jaxlm.data.columns import Known
from jaxlm.data.sources import Table
from jaxlm.errors import UserError, WhichColumn
from jaxlm.tasks import TASKS


def read(
    task: str, path: Path, content: str, *, labelled: bool = True, known: tuple[str, ...] = (), **settings: Any
) -> Table:
    path.write_text(content, encoding="utf-8")
    return TASKS[task].read(str(path), "train", DataSettings(**settings), labelled=labelled, known=Known(known))


CLAIMS = "query\ttext\tlabel\nwho\tshe\tyes\nwhat\tit\tno\n"


def test_the_column_of_the_second_text_is_not_that_of_the_first(tmp_path: Path) -> None:
    table = read("classification", tmp_path / "a.tsv", CLAIMS, text_pair="text", pairs=True)
    assert (table.texts, table.pairs, table.labels) == (["who", "what"], ["she", "it"], ["yes", "no"])
    with pytest.raises(UserError, match=r"a column is chosen twice\. Columns: query, text, label"):
        read("classification", tmp_path / "a.tsv", CLAIMS, text="text", text_pair="text")
    with pytest.raises(UserError, match="a column is chosen twice"):
        read("classification", tmp_path / "a.tsv", CLAIMS, text="text", label="text")


def test_a_text_that_is_chosen_is_alone_unless_the_task_is_of_pairs(tmp_path: Path) -> None:
    row = json.dumps({"sentence1": "a", "sentence2": "b", "gold_label": "neutral"})
    alone = read("classification", tmp_path / "a.jsonl", row, text="sentence2")
    assert (alone.texts, alone.pairs) == (["b"], None)
    both = read("classification", tmp_path / "a.jsonl", row, text="sentence1", pairs=True)
    assert (both.texts, both.pairs) == (["a"], ["b"])
    with pytest.raises(WhichColumn, match="which column is the second text"):
        read("classification", tmp_path / "a.jsonl", row, text="sentence2", pairs=True)


@pytest.mark.parametrize("rows", [["b b\tlong text", "b b\tlonger text"], ["a\tb", "c\td"]])
def test_two_columns_without_names_are_a_pair_to_a_model_of_pairs(tmp_path: Path, rows: list[str]) -> None:
    for chosen in ({"pairs": True}, {"text_pair": "1"}):
        table = read("classification", tmp_path / "a.tsv", "\n".join(rows), labelled=False, **chosen)
        assert list(zip(table.texts, table.pairs or [], strict=True)) == [tuple(row.split("\t")) for row in rows]


@pytest.mark.parametrize("task", ["embedding", "ranking"])
@pytest.mark.parametrize("names", ["question,sentence", "sentence,text"])
def test_texts_that_belong_together_are_two_columns(tmp_path: Path, task: str, names: str) -> None:
    one, other = names.split(",")
    rows = f"{names},label\nwho,she,1\nwhat,it,0\n"
    chosen = {"text_pair": "text"} if other == "text" else {}
    table = read(task, tmp_path / "a.csv", rows, **chosen)
    assert (table.texts, table.pairs) == (["who", "what"], ["she", "it"])
    turned = read(task, tmp_path / "a.csv", rows, text=other, text_pair=one)
    assert (turned.texts, turned.pairs) == (["she", "it"], ["who", "what"])


REVIEWS = [("12311_10", "a film that is longer than its name"), ("8348_2", "so so, all in all, and long"),
           ("1_1", "so so, all in all, and long")]  # fmt: skip


@pytest.mark.parametrize(("names", "quote"), [("id\treview", '"'), ("id\tcomment_text", ""), ("\ttweet", "")])
def test_a_header_of_an_id_and_a_text_is_no_text(tmp_path: Path, names: str, quote: str) -> None:
    lines = [names, *(f"{quote}{key}{quote}\t{text}" for key, text in REVIEWS)]
    table = read("classification", tmp_path / "test.tsv", "\n".join(lines), labelled=False)
    assert table.texts == [text for _, text in REVIEWS]
    with pytest.raises(WhichColumn, match="which column is the first text"):
        read("embedding", tmp_path / "test.tsv", "\n".join(lines), labelled=False)
    assert len(read("embedding", tmp_path / "test.tsv", "\n".join(lines), labelled=False, text="1")) == 3


def test_ids_that_differ_more_than_texts_are_no_texts(tmp_path: Path) -> None:
    lines = "\n".join(f"{key}\t{text}" for key, text in REVIEWS)
    assert read("classification", tmp_path / "test.tsv", lines, labelled=False).texts == [t for _, t in REVIEWS]
    with pytest.raises(WhichColumn, match=r"which column is the text\? --data.text 0 or --data.text 1"):
        read("classification", tmp_path / "test.tsv", "a1b2c3\tso so\na1b2c4\tgood\n", labelled=False)
    labelled = read(
        "classification", tmp_path / "test.tsv", "good\tnot good\nbad\tbad\n", labelled=False, known=("good",)
    )
    assert labelled.texts == ["not good", "bad"]


def test_several_columns_that_may_be_the_label_are_asked_about(tmp_path: Path) -> None:
    stance = "ID,Target,Tweet,Stance\n1,Atheism,dear lord,AGAINST\n2,Climate,so warm,FAVOR\n"
    with pytest.raises(WhichColumn, match="which column is the label, of Target, Stance"):
        read("classification", tmp_path / "a.csv", stance)
    assert read("classification", tmp_path / "a.csv", stance, label="Stance").labels == ["AGAINST", "FAVOR"]
    plain = "text,category,label,score\na,x,yes,0.5\nb,x,no,0.1\n"
    assert read("classification", tmp_path / "a.csv", plain).labels == ["yes", "no"]


SICK = (
    "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    "1\ta\tb\t4.5\tNEUTRAL\n2\tc\td\t1\tOTHER\n"
)


def test_a_line_of_a_pair_is_read_as_one_by_a_model_of_pairs(tmp_path: Path) -> None:
    table = read("classification", tmp_path / "one.txt", "He left.\tHe went.\n", labelled=False, pairs=True)
    assert (table.texts, table.pairs) == (["He left."], ["He went."])


def test_a_text_that_is_chosen_is_embedded_by_itself(tmp_path: Path) -> None:
    rows = "question,sentence\nwho,she\n"
    assert read("embedding", tmp_path / "a.csv", rows, labelled=False).pairs == ["she"]
    assert read("embedding", tmp_path / "a.csv", rows, labelled=False, text="question").pairs is None
    assert read("embedding", tmp_path / "a.csv", rows, text="question").pairs == ["she"]


def test_sick_has_a_score_and_a_class(tmp_path: Path) -> None:
    expected = {"classification": ["NEUTRAL", "OTHER"], "regression": [4.5, 1.0], "embedding": ["4.5", "1"]}
    for task, labels in expected.items():
        assert read(task, tmp_path / "SICK.txt", SICK).labels == labels


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("pos", "neg", "unsup"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0_9.txt").write_text(f"{split} {name}", encoding="utf-8")
        (tmp_path / split / "labeledBow.feat").write_text("9 0:9", encoding="utf-8")
    task = TASKS["classification"]
    for split in ("train", "test"):
        table = task.read(str(tmp_path), split, DataSettings())
        assert (table.texts, table.labels) == ([f"{split} neg", f"{split} pos"], ["neg", "pos"])
    with pytest.raises(UserError, match="no folder of dev among test, train"):
        task.read(str(tmp_path), "dev", DataSettings())
