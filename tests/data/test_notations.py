"""How other programs write labels, lists and files: read as meant, or refused with what to do."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config, DataSettings
from jaxlm.data.columns import Known
from jaxlm.data.sources import Table
from jaxlm.errors import UserError, WhichColumn
from jaxlm.models import BertConfig
from jaxlm.tasks import TASKS
from jaxlm.tasks.classification import in_order


def read(task: str, path: Path, content: str | bytes, *, known: tuple[str, ...] = (), **settings: Any) -> Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return TASKS[task].read(str(path), "train", DataSettings(**settings), known=Known(known))


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ({"1", "-1"}, ["-1", "1"]),
        ({"2", "-2", "0", "10", "-10"}, ["-10", "-2", "0", "2", "10"]),
        ({"1", "0.5", "1.5", "10"}, ["0.5", "1", "1.5", "10"]),
        ({"b", "a", "3", "nan"}, ["3", "a", "b", "nan"]),
    ],
)
def test_classes_that_are_numbers_come_by_size(names: set[str], ordered: list[str]) -> None:
    assert in_order(names) == ordered


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["<c#><.net>", "<c#>"], [("c#", ".net"), ("c#",)]),
        (["{'b', 'a'}", "('c',)"], [("a", "b"), ("c",)]),
        (["{1, 'a'}", "{}"], [("1", "a"), ()]),
        (["(a) one; (b)", "{odd"], [("(a) one", "(b)"), ("{odd",)]),
    ],
)
def test_several_labels_in_one_cell(tmp_path: Path, cells: list[str], found: list[tuple[str, ...]]) -> None:
    rows = "".join(f'text {n},"{cell}"\n' for n, cell in enumerate(cells))
    assert read("multi_label", tmp_path / "a.csv", f"text,labels\n{rows}").labels == found


@pytest.mark.parametrize("cell", ["0 0 1 0 1", "1 0", "0,1,1"])
def test_a_digit_for_each_label_is_no_list_of_names(tmp_path: Path, cell: str) -> None:
    with pytest.raises(UserError, match="line 2: 0 or 1 for each label; a list of those that apply is meant"):
        read("multi_label", tmp_path / "a.csv", f'text,labels\none,"{cell}"\n')


def test_labels_that_are_called_0_and_1_are_names(tmp_path: Path) -> None:
    """As in GoEmotions, whose emotions have numbers."""
    rows = "that is fun\t0,1\nmy food\t27\n"
    assert read("multi_label", tmp_path / "a.tsv", rows, text="0", label="1").labels == [("0", "1"), ("27",)]


def _for_training(path: Path, labels: list[Any]) -> None:
    table = read("multi_label", path, "\n".join(json.dumps({"text": "a", "labels": given}) for given in labels))
    tokenizer: Any = None  # labels need none
    TASKS["multi_label"].for_training(Config(task="multi_label"), tokenizer, table, BertConfig())


def test_lists_of_digits_are_refused_and_names_with_spaces_doubted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"0 or 1 for each label, as it seems; a list of those that apply is meant"):
        _for_training(tmp_path / "a.jsonl", [[0, 1], [1, 0]] * 2)
    with caplog.at_level(logging.WARNING, "jaxlm"):
        _for_training(tmp_path / "b.jsonl", ["php jquery", "php css", "css jquery", "php"])
    assert "no text has two labels, and most names have spaces, as 'css jquery' has" in caplog.text
    caplog.clear()
    _for_training(tmp_path / "c.jsonl", ["dark red", "light blue", "green"])
    assert not caplog.text


def test_rows_that_were_not_judged_are_left_out(tmp_path: Path) -> None:
    """As in Jigsaw's test set."""
    rows = "id,comment_text,toxic,threat\nx1,one,-1,-1\nx2,two,-1,-1\nx3,you,1,0\n"
    with pytest.raises(UserError, match=r"line 2: neither 0 nor 1 for a label \(toxic\)"):
        read("multi_label", tmp_path / "a.csv", rows, known=("toxic", "threat"))
    kept = read("multi_label", tmp_path / "a.csv", rows, known=("toxic", "threat"), bad_rows="skip")
    assert (kept.texts, kept.labels) == (["you"], [("toxic",)])


def test_true_and_false_of_pandas_are_labels_in_columns(tmp_path: Path) -> None:
    rows = "text,joy,anger\none,True,False\ntwo,False,False\nthree,TRUE,true\n"
    assert read("multi_label", tmp_path / "a.csv", rows).labels == [("joy",), (), ("joy", "anger")]


def test_a_score_beside_a_label_is_asked_for(tmp_path: Path) -> None:
    rows = "sentence_A,sentence_B,label,relatedness_score\none,two,1,4.5\nthree,four,0,3.5\n"
    with pytest.raises(WhichColumn, match="which column is the label, of label, relatedness_score"):
        read("regression", tmp_path / "a.csv", rows)
    assert read("regression", tmp_path / "a.csv", rows, label="relatedness_score").labels == [4.5, 3.5]
    assert read("classification", tmp_path / "a.csv", rows).labels == ["1", "0"]


def test_withheld_scores_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every label is -1, as where the answers are withheld"):
        read("regression", tmp_path / "a.csv", "text,score\n" + "one,-1.0\ntwo,-1\n" * 3)
    assert read("regression", tmp_path / "a.csv", "text,score\none,-1\ntwo,-1\n").labels == [-1.0, -1.0]


def test_an_empty_column_of_second_texts_is_none(tmp_path: Path) -> None:
    rows = "guid,text_a,text_b,label\n1,one,,a\n2,two,,b\n"
    assert read("classification", tmp_path / "a.csv", rows).pairs is None
    with pytest.raises(UserError, match=r"line 2: empty text \(the second, of column "):
        read("classification", tmp_path / "a.csv", rows, pairs=True)


def test_negatives_that_were_never_mined_are_none(tmp_path: Path) -> None:
    rows = [{"query": f"q{n}", "pos": ["a"], "neg": []} for n in range(2)]
    assert read("embedding", tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))).negatives is None
    rows[0]["neg"] = ["b"]
    with pytest.raises(UserError, match=r"line 2: an empty list of texts \(neg\)"):
        read("embedding", tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("task", ["classification", "masked_lm"])
def test_a_text_may_be_a_list_of_sentences(tmp_path: Path, task: str) -> None:
    row = json.dumps({"text": ["One sentence.", "And another."], "label": "a"})
    assert read(task, tmp_path / "a.jsonl", row).texts == ["One sentence. And another."]
    with pytest.raises(UserError, match="line 1: text that is no string"):
        read(task, tmp_path / "a.jsonl", row.replace('"And', '3, "And'))


def test_lists_are_lines_too(tmp_path: Path) -> None:
    """As in sentence-transformers' training data."""
    table = read("embedding", tmp_path / "a.jsonl", '["one", "uno", "dos"]\n["two", "dos", "uno"]\n')
    assert (table.texts, table.pairs, table.negatives) == (["one", "two"], ["uno", "dos"], ["dos", "uno"])


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_tsv_all_in_quotes(tmp_path: Path, name: str) -> None:
    rows = '"text"\t"label"\n"say ""one"""\t"a"\n"two"\t"b"\n'
    table = read("classification", tmp_path / name, rows)
    assert (table.texts, table.labels) == (['say "one"', "two"], ["a", "b"])
    bare = read("classification", tmp_path / name, 'text\tlabel\n"one"\t"a"\ntwo\tb\n')
    assert (bare.texts, bare.labels) == (['"one"', "two"], ['"a"', "b"])
    assert read("classification", tmp_path / name, '"one"\t1\n"two"\t0\n').texts == ['"one"', '"two"']


def test_excels_first_line_says_what_parts_values(tmp_path: Path) -> None:
    table = read("classification", tmp_path / "a.csv", "sep=;\ntext;label\none, or more;a\ntwo;b\n")
    assert (table.texts, table.labels) == (["one, or more", "two"], ["a", "b"])


def test_fasttext_after_an_empty_line(tmp_path: Path) -> None:
    table = read("classification", tmp_path / "a.txt", "\n__label__a one\n__label__b two\n")
    assert (table.texts, table.labels) == (["one", "two"], ["a", "b"])


ROW = {"text": "one", "label": "a"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", gzip.compress(b"text,label\n"), "is compressed: give it a name that ends in .gz"),
        ("a.csv", b"PK\x03\x04\x14\x00", "is a zip archive"),
        ("a.tsv", "text\tlabel\n".encode("utf-16-le"), "is UTF-16"),
        ("a.txt", json.dumps(ROW).encode(), "its first line is a JSON object; name it .jsonl"),
        ("a.csv", json.dumps(ROW).encode(), "its first line is a JSON object; name it .jsonl"),
        ("a.json", json.dumps([ROW, ROW], indent=1)[:-1].encode(), "line 10: no JSON"),
        (
            "a.json",
            json.dumps({"text": ["one", "two"], "label": ["a", "b"]}).encode(),
            "an object with keys text, label",
        ),
        ("a.jsonl", json.dumps([ROW, ROW]).encode(), "a JSON list of rows in one line; name it .json"),
        ("a.jsonl", json.dumps([ROW, ROW], indent=1).encode(), "a JSON list over several lines; name it .json"),
    ],
    ids=[
        "gzip",
        "zip",
        "UTF-16",
        "objects in txt",
        "objects in csv",
        "cut",
        "columns",
        "a list in a line",
        "a list over lines",
    ],
)
def test_a_file_with_the_name_of_another_kind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("classification", tmp_path / name, content)


def test_advice_is_of_the_file_at_hand(tmp_path: Path) -> None:
    with pytest.raises(WhichColumn, match=r"which column is the second text\? Columns: set "):
        read("embedding", tmp_path / "a.jsonl", '{"set": ["a", "b"]}')
    with pytest.raises(UserError, match=r"no number \('E'\); a grade from 0 on is meant, the larger the better"):
        read("ranking", tmp_path / "a.csv", "query,passage,label\none,two,E\n")
