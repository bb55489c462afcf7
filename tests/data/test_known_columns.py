"""What the training's file tells of those that are read after it: dev, test, and what `evaluate` and `predict` get."""

import logging
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import Config, DataSettings
from jaxlm.data.columns import Known
from jaxlm.data.sources import Table
from jaxlm.errors import UserError, WhichColumn
from jaxlm.tasks import TASKS
from jaxlm.training.setup import _read_tables


class Files:
    """Reads what is written first as the training's, and the rest as a model that remembers it does."""

    def __init__(self, folder: Path, task: str = "classification"):
        self._folder, self._task = folder, TASKS[task]
        self.train = Table("", [], None, None, [])

    def first(self, name: str, content: str, **settings: Any) -> Table:
        self.train = self._read(name, content, "train", True, settings)
        return self.train

    def then(self, name: str, content: str, *, labelled: bool = True, **settings: Any) -> Table:
        return self._read(name, content, "test", labelled, settings)

    def _read(self, name: str, content: str, split: str, labelled: bool, settings: dict[str, Any]) -> Table:
        path = self._folder / name
        path.write_text(content, encoding="utf-8")
        data, known = DataSettings(**settings), self.train.known
        return self._task.read(str(path), split, data, labelled=labelled, known=known)


NEWS = "id,title,text,label\n1,Short one,A long one,a\n2,Short two,Another,b\n"


@pytest.mark.parametrize("chosen", [{"text": "1", "label": "3"}, {"text": "title"}])
def test_a_chosen_column_is_known_by_its_name(tmp_path: Path, chosen: dict[str, str]) -> None:
    files = Files(tmp_path)
    files.first("a.csv", NEWS, **chosen)
    turned = "label,text,title\na,A long one,Short one\n"
    assert files.then("b.csv", turned).texts == files.then("b.csv", turned, labelled=False).texts == ["Short one"]
    assert files.then("b.csv", turned, text="text").texts == ["A long one"]


def test_a_column_that_was_found_serves_again(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.csv", "title,label\nShort one,a\nShort two,b\n")
    assert files.then("b.csv", NEWS).texts == ["Short one", "Short two"]
    config = Config(data=DataSettings(train=str(tmp_path / "a.csv"), dev=str(tmp_path / "b.csv")))
    assert _read_tables(config)["dev"].texts == ["Short one", "Short two"]


def test_columns_are_known_one_by_one(tmp_path: Path) -> None:
    """That the label has another name makes no other column the text."""
    files = Files(tmp_path)
    files.first("a.csv", "headline,text,category\nOne,no,a\nTwo,no,b\n", text="headline", label="category")
    assert files.then("b.csv", "headline,text,label\nOne,no,a\n").texts == ["One"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_what_is_no_label_need_not_be_told_from_the_text(tmp_path: Path, task: str) -> None:
    files = Files(tmp_path, task)
    files.first("a.csv", "label,headline\n1,How one begins\n2,How two ends\n")
    assert files.then("a.csv", "label,headline\n1,How one begins\n", labelled=False).texts == ["How one begins"]


def test_a_text_of_labels_that_are_columns_is_known_to_predict(tmp_path: Path) -> None:
    rows = "Utterance_raw,joy,anger\n" + "".join(f"what text {n} says,{n % 2},1\n" for n in range(6))
    files = Files(tmp_path, "multi_label")
    files.first("a.csv", rows)
    assert files.then("a.csv", rows, labelled=False).texts[0] == "what text 0 says"


@pytest.mark.parametrize("header", ["auto", "no"])
def test_a_file_without_names_is_followed_by_such_files(tmp_path: Path, header: str) -> None:
    """The first line of the second file has a label that does not come again, as a name of a column would not."""
    rows = [f"what is said in row {n}\t{'music' if n % 2 else 'lights'}" for n in range(12)]
    files = Files(tmp_path)
    files.first("a.tsv", "\n".join(rows), header=header)
    later = "\n".join(["turn it off please\tlights", *(row for row in rows if "music" in row)])
    for labelled in (True, False):
        assert len(files.then("b.tsv", later, labelled=labelled)) == 7


def test_a_first_row_of_several_labels_is_no_header(tmp_path: Path) -> None:
    """As in GoEmotions, where nothing in it looks like what is below."""
    files, chosen = Files(tmp_path, "multi_label"), {"text": "0", "label": "1"}
    rows = [f"Well, that is what I said in row {n}\t{n % 3}\te{n}x" for n in range(9)]
    files.first("a.tsv", "\n".join(rows), header="no", **chosen)
    assert len(files.then("b.tsv", "\n".join(["Thanks\t15,16\teecwqtt", *rows]), labelled=False)) == 10


def test_a_name_that_nobody_else_gives_is_known_in_a_short_file(tmp_path: Path) -> None:
    rows = [f"what is said in row {n},intent {n % 6}" for n in range(12)]
    files = Files(tmp_path)
    assert len(files.first("a.csv", "\n".join(["Utterances,Intents", *rows]))) == 12
    for labelled in (True, False):
        assert len(files.then("b.csv", "\n".join(["Utterances,Intents", *rows[:2]]), labelled=labelled)) == 2
    assert files.then("c.csv", "Utterances\none\ntwo\n", labelled=False).texts == ["one", "two"]


def test_chosen_positions_serve_again(tmp_path: Path) -> None:
    rows = "1\tnegative\tSome tweet.\n2\tpositive\tAnother one.\t\n"
    files = Files(tmp_path)
    files.first("a.txt", rows, text="2", label="1")
    assert (
        files.then("b.txt", rows, labelled=False).texts
        == files.then("b.txt", rows).texts
        == ["Some tweet.", "Another one."]
    )
    assert files.then("c.txt", "7\t?\tA tweet by itself.", labelled=False).texts == ["A tweet by itself."]
    assert files.then("d.txt", "just a text\n", labelled=False).texts == ["just a text"]


def test_positions_that_nobody_chose_do_not_serve_again(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.tsv", "one text\ta\nother text\tb\n")
    assert files.then("b.tsv", "b\tother text\na\tone text\n").texts == ["other text", "one text"]
    with pytest.raises(WhichColumn):
        files.then("c.tsv", "x1\tone text\tsome\nx2\tother text\tmore\n", labelled=False)


def test_a_known_label_says_more_than_a_position(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.tsv", "one text\ta\nother text\tb\n", text="0", label="1")
    assert files.then("b.tsv", "b\tother text\na\tone text\n").texts == ["other text", "one text"]


def test_lines_with_tabs_are_rows_even_where_one_has_more(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 3: wrong number of columns \(3 instead of 2"):
        Files(tmp_path).then("a.txt", "id\ttext\n1\thello there\n2\tx\ty\n", labelled=False)
    prose = "one\ttab\n" + "none at all\n" * 5
    assert len(Files(tmp_path).then("b.txt", prose, labelled=False)) == 6


def test_pairs_and_their_score_serve_again(tmp_path: Path) -> None:
    files = Files(tmp_path, "ranking")
    files.first("a.csv", "asked,reply,grade\nwho,she,1\nwhat,it,0\n", text="asked", text_pair="reply")
    table = files.then("b.csv", "query,passage,reply,asked,label\nno,no,she,who,2\n")
    assert (table.texts, table.pairs, table.labels) == (["who"], ["she"], [2.0])


def test_data_that_judges_itself_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\none,a\ntwo,b\n")
    with caplog.at_level(logging.WARNING, "jaxlm"):
        _read_tables(Config(data=DataSettings(train=str(path), dev=str(path))))
    assert f"{path}: dev has the texts of the training, row by row: nothing is held out" in caplog.text


def test_splits_are_known_by_what_their_column_holds(tmp_path: Path) -> None:
    rows = "text,label,SemEval_set\none,a,TRAIN\ntwo,b,TRAIN\nthree,a,TRIAL\nfour,b,TEST\n"
    files = Files(tmp_path)
    assert files.first("a.csv", rows).texts == ["one", "two"]
    assert files.then("a.csv", rows).texts == ["four"]


def test_files_put_together_have_several_header_lines(tmp_path: Path) -> None:
    rows = "text,label\none,a\ntwo,b\ntext,label\nthree,a\n"
    with pytest.raises(UserError, match="line 4: the line of column names again"):
        Files(tmp_path).first("a.csv", rows)
    assert Files(tmp_path).first("a.csv", rows, bad_rows="skip").texts == ["one", "two", "three"]


def test_two_columns_of_one_name_are_refused_where_they_are_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two columns are called 'label'; give one of them another name"):
        Files(tmp_path).first("a.csv", "text,label,label\none,a,x\ntwo,b,y\n")
    assert len(Files(tmp_path).first("a.csv", "text,label,note,note\none,a,x,y\ntwo,b,y,x\n")) == 2


@pytest.mark.parametrize(
    ("names", "text"),
    [("question,answer", 0), ("anchor,positive", None), ("prompt,completion", None), ("name,bio", 1), ("docno,body", 1),
     ("claim", 0)],
)  # fmt: skip
def test_names_over_texts_are_no_text(tmp_path: Path, names: str, text: int | None) -> None:
    """Where no label is wanted, as `embed` and `predict` read a file; None: either may be the text."""
    texts = [[f"What is item {n}?", f"Item {n} is a rather long explanation of it"] for n in range(9)]
    rows = [",".join(row[: names.count(",") + 1]) for row in texts]
    content = "\n".join([names, *rows])
    if text is None:
        with pytest.raises(WhichColumn, match=f"which column is the text. Columns: {names.replace(',', ', ')} "):
            Files(tmp_path).then("a.csv", content, labelled=False)
    else:
        assert Files(tmp_path).then("a.csv", content, labelled=False).texts == [row[text] for row in texts]


SAID = [f"this is what somebody said in row {n}" for n in range(8)]
HEADLESS = "\n".join(f"{text}\t{'ab'[n % 2]}" for n, text in enumerate(SAID))


def test_a_row_of_single_words_is_none_of_names_where_a_word_comes_again(tmp_path: Path) -> None:
    rows = ["greet\thello", *(f"{('greet', 'book')[n % 2]}\t{text}" for n, text in enumerate(SAID))]
    assert len(Files(tmp_path).first("a.tsv", "\n".join(rows))) == 9


def test_one_text_of_a_pair_stays_alone(tmp_path: Path) -> None:
    rows = "question\tsentence\tlabel\nwho\tshe\tyes\nwhat\tit\tno\n"
    files = Files(tmp_path)
    files.first("a.tsv", rows, text="sentence")
    for labelled in (True, False):
        table = files.then("b.tsv", rows, labelled=labelled)
        assert (table.texts, table.pairs) == (["she", "it"], None)


def test_old_models_remember_a_text_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence1,sentence2,label\none,uno,a\ntwo,dos,b\n")
    for pairs in (False, True):
        table = TASKS["classification"].read(
            str(tmp_path / "a.csv"), "test", DataSettings(pairs=pairs), known=Known((), {"text": "sentence1"})
        )
        assert (table.texts, table.pairs) == (["one", "two"], ["uno", "dos"] if pairs else None)


def test_of_two_columns_of_one_name_a_position_chooses(tmp_path: Path) -> None:
    files = Files(tmp_path)
    table = files.first("a.csv", "text,text,label\none,two,a\nthree,four,b\n", text="0")
    assert (table.texts, table.columns) == (["one", "three"], {"label": "label"})


def test_positions_are_no_excuse_for_broken_rows(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.tsv", HEADLESS, text="0", label="1")
    with pytest.raises(UserError, match="line 2: wrong number of columns"):
        files.then("b.tsv", "hello there you\ta\nwell I do not know\tb\tx\n", labelled=False)
    with pytest.raises(UserError, match="line 2: wrong number of columns"):
        files.then("b.csv", "id,text,n\n1,well, I do not know,2\n2,hi there,3\n", labelled=False)


@pytest.mark.parametrize("first", ["hello there\t", "\tindented", "a text\twith a tab"])
def test_texts_with_tabs_are_texts(tmp_path: Path, first: str) -> None:
    for chosen in ({}, {"text": "0", "label": "1"}):
        files = Files(tmp_path)
        files.first("a.tsv", HEADLESS, **chosen)
        assert files.then("b.txt", "\n".join([first, *SAID]), labelled=False).texts == [first.strip(), *SAID]
    assert files.then("b.txt", "a text\twith a tab", labelled=False).texts == ["a text\twith a tab"]


def test_texts_alone_have_no_label_to_leave_out(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.tsv", "\n".join(f"{'ab'[n % 2]}\t{text}" for n, text in enumerate(SAID)), text="1", label="0")
    for name in ("b.txt", "b.csv"):
        assert files.then(name, "\n".join(SAID), labelled=False).texts == SAID


def test_positions_are_the_last_resort(tmp_path: Path) -> None:
    """As where a model was trained on CoLA's columns without names, and a file names them as nobody does."""
    files = Files(tmp_path)
    files.first("a.tsv", "\n".join(f"gj04\t{n % 2}\t*\t{text}" for n, text in enumerate(SAID)), text="3", label="1")
    rows = "\n".join(["index,lab,mark,utt", *(f"{n},{n % 2},*,{text}" for n, text in enumerate(SAID))])
    for labelled in (True, False):
        assert files.then("b.csv", rows, labelled=labelled).texts == SAID


def test_evident_names_are_known_after_a_file_without(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.tsv", HEADLESS)
    rows = "\n".join([",comment_txt", *(f"{n},{text}" for n, text in enumerate(SAID))])
    assert files.then("b.csv", rows, labelled=False).texts == SAID


def test_ids_are_not_the_text_for_their_position(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.tsv", HEADLESS, text="0", label="1")
    assert files.then("b.tsv", "\n".join(f"u{n}\t{text}" for n, text in enumerate(SAID)), labelled=False).texts == SAID


def test_names_in_capitals_and_a_new_one(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.first("a.csv", "Tweet_Body,Mood\n" + "".join(f"{text},{n % 2}\n" for n, text in enumerate(SAID)))
    assert files.then("b.csv", f"mood,tweet_body\n1,{SAID[0]}\n").texts == SAID[:1]
    assert files.then("b.csv", f"Tweet_Body,feeling\n{SAID[0]},1\n").labels == ["1"]
    assert files.then("b.csv", f"Mood,wording\n1,{SAID[0]}\n", labelled=False).texts == SAID[:1]


def test_where_a_column_has_other_splits_it_says_something_else(tmp_path: Path) -> None:
    rows = "text,label,source\none,a,train\ntwo,b,test\n"
    files = Files(tmp_path)
    assert len(files.first("a.csv", rows)) == 1
    assert len(files.then("b.csv", rows.replace("test", "dev"))) == 2


@pytest.mark.parametrize("first", ["Perfect", "Answer"])
def test_a_text_of_one_word_is_no_name(tmp_path: Path, first: str) -> None:
    assert len(Files(tmp_path).then("a.csv", "\n".join([first, *SAID]), labelled=False)) == 9
    assert len(Files(tmp_path).then("b.csv", "ok\n" + "yes\nno\n" * 4, labelled=False)) == 9
    assert len(Files(tmp_path).then("b.csv", "N/A\n" + "1\n2\n" * 4, labelled=False)) == 9
    files = Files(tmp_path)
    files.first("a.csv", "text,label\none,a\ntwo,b\n")
    assert files.then("b.txt", "text\none\n", labelled=False).texts == ["text", "one"]
    assert len(Files(tmp_path).then("c.csv", "title\none\ntitle\n", labelled=False, header="yes")) == 2


def test_positions_are_no_names_of_labels_and_a_score_is_none(tmp_path: Path) -> None:
    files = Files(tmp_path, "multi_label")
    files.first(
        "a.jsonl", '{"text": "one", "labels": ["0", "1"], "score": 3}\n{"text": "two", "labels": ["2"], "score": 1}'
    )
    assert files.train.labels == [("0", "1"), ("2",)]
    with pytest.raises(WhichColumn, match="which column is the label"):
        files.then("b.tsv", "\n".join(f"0\t1\t1\t{text}" for text in SAID))
