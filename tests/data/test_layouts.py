"""Files as public data sets are laid out: what is in them is read, or said not to be; nothing is silently lost."""

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import Config, DataSettings
from jaxlm.data.columns import Known
from jaxlm.data.readers import read_rows
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.tasks import TASKS
from jaxlm.training.setup import _read_tables


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def read(task: str, path: Path, *, labelled: bool = True, **settings: Any) -> Any:
    return TASKS[task].read(str(path), "train", DataSettings(**settings), labelled=labelled)


def shown(table: Table) -> list[tuple[Any, ...]]:
    parts = (table.texts, table.pairs, table.labels)
    return list(zip(*(part for part in parts if part is not None), strict=True))


MESSAGES = [("ham" if n % 3 else "spam", f"message number {n}, with a comma") for n in range(12)]


def test_names_that_nobody_knows_are_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sms = "v1,v2\n" + "".join(f'{label},"{text}"\n' for label, text in MESSAGES)
    with caplog.at_level(logging.INFO, "jaxlm"):
        found = shown(read("classification", write(tmp_path / "spam.csv", sms)))
    assert found == [(text, label) for label, text in MESSAGES]
    assert "the first line is taken for names of columns: v1, v2 (a row? --data.header no)" in caplog.text
    assert len(shown(read("classification", tmp_path / "spam.csv", header="no"))) == 13


def test_positions_do_not_make_a_row_of_the_names(tmp_path: Path) -> None:
    kinds = ("NEUTRAL", "ENTAILMENT", "CONTRADICTION")
    rows = [f"{n}\tA man no. {n}\tA woman no. {n}\t{kinds[n % 3]}\t{n / 3:.1f}" for n in range(30)]
    sick = write(tmp_path / "SICK.txt", "pair_ID\tA\tB\tjudgment_\trelated_\n" + "\n".join(rows))
    table = read("classification", sick, text="1", text_pair="2", label="3")
    assert (len(table), table.known_labels) == (30, set(kinds))
    assert len(read("embedding", sick, text="1", text_pair="2", label="4")) == 30
    rated = read("regression", sick, text="1", text_pair="2", label="4")
    assert rated.labels[:3] == [0.0, 0.3, 0.7]


def test_scores_below_a_name_are_no_texts(tmp_path: Path) -> None:
    rows = [f"left {n}\tright {n}\t{n / 2}" for n in range(10)]
    path = write(tmp_path / "pairs.tsv", "one\tother\tgold\n" + "\n".join(rows) + "\n")
    table = read("embedding", path)
    assert (len(table), table.negatives, table.labels[1]) == (10, None, "0.5")


@pytest.mark.parametrize("first", ["hello there,greeting", "a,greeting"])
def test_a_first_row_is_no_header_where_its_label_occurs_again(tmp_path: Path, first: str) -> None:
    rows = [f"text {n},{('greeting', 'other')[n % 2]}" for n in range(12)]
    path = write(tmp_path / "a.csv", "\n".join([first, *rows]))
    assert len(read("classification", path)) == 13


def test_a_long_first_row_is_no_header_though_its_label_is_rare(tmp_path: Path) -> None:
    rows = [f"text {n},{('greeting', 'other')[n % 2]}" for n in range(12)]
    path = write(tmp_path / "a.csv", "\n".join(["could you please tell me what this is,rare", *rows]))
    assert len(read("classification", path)) == 13


def test_a_single_column_may_have_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", 'review\n"Hi, ""x""\nthere"\nok\n')
    expected = [('Hi, "x"\nthere',), ("ok",)]
    assert shown(read("classification", path, labelled=False)) == expected
    odd = write(tmp_path / "odd.csv", 'verbatim\n"Hi, ""x""\nthere"\nok\n')
    assert shown(read("classification", odd, labelled=False, header="yes")) == expected
    assert shown(read("classification", odd, labelled=False, text="verbatim")) == expected
    assert len(shown(read("classification", odd, labelled=False))) == 3
    lines = write(tmp_path / "lines.txt", "review\nok\n")
    assert len(shown(read("classification", lines, labelled=False))) == 2


@pytest.mark.parametrize("names", ["question sentence", "question passage", "query passage", "query document"])
def test_two_names_that_are_texts_by_themselves_are_a_pair(tmp_path: Path, names: str) -> None:
    first, second = names.split()
    rows = [{second: f"it is {n}", "label": n % 2, first: f"is {n} even"} for n in range(4)]
    path = write(tmp_path / "qnli.jsonl", "\n".join(map(json.dumps, rows)))
    assert shown(read("classification", path))[1] == ("is 1 even", "it is 1", "1")
    assert read("classification", path, text=second).pairs is None


@pytest.mark.parametrize("rest", ["headline", "headline,label"])
def test_an_index_of_pandas_is_no_text_and_its_header_no_row(tmp_path: Path, rest: str) -> None:
    """What `DataFrame.to_csv` writes unless it is told not to; of one row, too."""
    for rows in (1, 4):
        lines = [f",{rest}", *(f"{n},news number {n}" + f",{n % 2}" * ("label" in rest) for n in range(rows))]
        table = read("classification", write(tmp_path / "news.csv", "\n".join(lines) + "\n"), labelled="label" in rest)
        assert (table.texts, table.pairs) == ([f"news number {n}" for n in range(rows)], None)


def test_columns_that_serve_nothing_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"question": f"is {n} even", "reason": "numbers", "label": n % 2} for n in range(4)]
    path = write(tmp_path / "asked.jsonl", "\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.INFO, "jaxlm"):
        read("classification", path)
    assert "columns: text question, label label; not used: reason" in caplog.text


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ([3, 17], ("3", "17")),
        ("joy, love", ("joy", "love")),
        ("['joy', 'love']", ("joy", "love")),
        ("[]", ()),
        ({"toxic": 1, "insult": 0, "threat": True}, ("toxic", "threat")),
        ([0, 1], ("0", "1")),
    ],
)
def test_sets_of_labels_come_in_many_forms(tmp_path: Path, cell: Any, expected: tuple[str, ...]) -> None:
    rows = [{"text": "a", "labels": cell}, {"text": "b", "labels": ["joy"]}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read("multi_label", path).labels == [expected, ("joy",)]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [([0, 1, 0], "0 or 1 for each label; a list of those"), ({"toxic": 0.7}, "other values than true and false")],
)
def test_a_number_for_each_label_is_refused(tmp_path: Path, cell: Any, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "a", "labels": cell}))
    with pytest.raises(UserError, match=f"line 1: .*{reason}"):
        read("multi_label", path)


def test_a_dash_is_no_label(tmp_path: Path) -> None:
    rows = [{"gold_label": label, "sentence1": "a", "sentence2": "b"} for label in ("neutral", "-", "entailment")]
    path = write(tmp_path / "snli.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"line 2: no label \(-\)"):
        read("classification", path)
    table = read("classification", path, bad_rows="skip")
    assert (table.labels, table.skipped) == (["neutral", "entailment"], {"no label": 1})


def test_a_quote_that_is_not_closed_costs_its_own_line(tmp_path: Path) -> None:
    rows = [f"text {n},{n % 2}" for n in range(30)]
    rows[4] = '"Wow ...,1'
    path = write(tmp_path / "a.csv", "text,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r"line 6: no csv: .*is a quote open\? it would span 26 lines"):
        read("classification", path)
    table = read("classification", path, bad_rows="skip")
    assert table.texts == [f"text {n}" for n in range(30) if n != 4]
    assert sum(table.skipped.values()) == 1


@pytest.mark.parametrize("sign", ["\t", ";"])
def test_a_csv_may_have_other_signs_than_commas(tmp_path: Path, sign: str) -> None:
    path = write(tmp_path / "a.csv", f"text{sign}label\n" + "".join(f"a, b{sign}{n}\n" for n in range(3)))
    assert shown(read("classification", path)) == [("a, b", "0"), ("a, b", "1"), ("a, b", "2")]


def test_signs_within_quotes_part_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '"a; b"\n"c, d; e"\n')
    assert shown(read("classification", path, labelled=False)) == [("a; b",), ("c, d; e",)]


def test_a_long_document_is_a_field(tmp_path: Path) -> None:
    text = "word " * 40_000
    path = write(tmp_path / "a.csv", f"text,label\n{text},1\nb,2\n")
    assert read("classification", path).texts == [text.strip(), "b"]


def test_an_object_a_line_may_be_called_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    assert shown(read("classification", path)) == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    ("task", "column", "expected"),
    [
        ("classification", [1, 0], ["Sports", "World"]),
        ("classification", [1, -1], ["Sports"]),
        ("multi_label", [[1], [0, 1]], [("Sports",), ("World", "Sports")]),
    ],
)
def test_parquet_of_the_datasets_library_names_its_classes(
    tmp_path: Path, task: str, column: list[Any], expected: list[Any]
) -> None:
    feature: dict[str, Any] = {"names": ["World", "Sports"], "_type": "ClassLabel"}
    if task == "multi_label":
        feature = {"feature": feature, "_type": "Sequence"}
    note = json.dumps({"info": {"features": {"text": {"dtype": "string", "_type": "Value"}, "label": feature}}})
    table = pyarrow.table({"text": ["a", "b"], "label": column}).replace_schema_metadata({"huggingface": note})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read(task, tmp_path / "a.parquet", bad_rows="skip")
    assert (found.labels, found.label_names) == (expected, ["World", "Sports"])


NER = "EU B-ORG\nrejects O\nGerman B-MISC\n\nPeter B-PER\nBlackburn I-PER\n"


@pytest.mark.parametrize("name", ["wikigold.conll.txt", "test.tsv", "eng.testa"])
def test_predict_reads_tagged_files_as_training_does(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, NER)
    assert read("token_classification", path, labelled=False).words == read("token_classification", path).words
    text = write(tmp_path / "plain.txt", "EU rejects German call\nPeter Blackburn\n")
    assert len(read("token_classification", text, labelled=False)) == 2


@pytest.mark.parametrize("row", ["{0} {1} lemma", "{0} NN {1} _", "{0} {1} NoSpaceAfter"])
@pytest.mark.parametrize("sign", ["-", "_"])
def test_tags_are_in_the_column_that_holds_entities_though_it_is_not_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str, sign: str
) -> None:
    tagged = (line and row.format(*line.split()) for line in NER.replace("-", sign).splitlines())
    path = write(tmp_path / "a.conll", "\n".join(tagged))
    with caplog.at_level(logging.INFO, "jaxlm"):
        found = read("token_classification", path)
    assert (found.words, found.tags) == (
        [["EU", "rejects", "German"], ["Peter", "Blackburn"]],
        [["B-ORG", "O", "B-MISC"], ["B-PER", "I-PER"]],
    )
    assert f"tags in column {row.split().index('{1}')}, of" in caplog.text


HIPE = (
    "TOKEN\tNE-COARSE-LIT\tNE-COARSE-METO\tNE-FINE-LIT\tMISC\n# hipe2022:document_id = 1\n# language = fr\n"
    "Ada\tB-pers\tO\tB-pers.ind\t_\n# segment_iiif_link = _\nsmiled\tO\tO\tO\tNoSpaceAfter\n#\tO\tO\tO\t_\n\n"
    "TOKEN\tNE-COARSE-LIT\tNE-COARSE-METO\tNE-FINE-LIT\tMISC\n# hipe2022:document_id = 2\nToken\tO\tO\tO\t_\n"
)


def test_names_of_columns_and_comments_of_hipe_are_no_words(tmp_path: Path) -> None:
    path = write(tmp_path / "HIPE-2022-fr.tsv", HIPE)
    message = r"columns 1 \(NE-COARSE-LIT\), 3 \(NE-FINE-LIT\) hold tags, as it seems; which .*--data\.tags NUMBER"
    with pytest.raises(UserError, match=message):
        read("token_classification", path)
    found = read("token_classification", path, tags="1")
    assert (found.words, found.tags) == ([["Ada", "smiled", "#"], ["Token"]], [["B-pers", "O", "O"], ["O"]])
    assert read("token_classification", path, labelled=False).words == found.words
    words = write(tmp_path / "pos.tsv", "token\tNOUN\n.\tPUNCT\n\nword\tNOUN\n")
    assert read("token_classification", words).words == [["token", "."], ["word"]]


def test_tags_ahead_of_words_are_not_taken_for_words(tmp_path: Path) -> None:
    path = write(tmp_path / "movies.bio", "O\tfilms\nO\tby\nB-ACTOR\ttom\nI-ACTOR\thanks\n\nO\tfilms\nB-YEAR\t1999\n")
    with pytest.raises(UserError, match=r"--data\.tags 0 --data\.words 1"):
        read("token_classification", path)
    assert read("token_classification", path, tags="0", words="1").words[0] == ["films", "by", "tom", "hanks"]


def test_comments_of_conll_files_are_no_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "# id 1\n# text = # EU\n# O\nEU B-ORG\n\n# id 2\nPeter B-PER\n")
    table = read("token_classification", write(tmp_path / "b.conll", "EU B-ORG\n# O\n\n# id 2 x\nPeter B-PER\n"))
    assert table.words == [["EU", "#"], ["Peter"]]
    assert read("token_classification", path).words[-1] == ["Peter"]


def test_bmes_marks_entities(tmp_path: Path) -> None:
    path = write(tmp_path / "resume.bmes", "高 B-NAME\n大 M-NAME\n勇 E-NAME\n在 O\n京 S-LOC\n")
    table = read("token_classification", path)
    assert table.tags == [["B-NAME", "I-NAME", "I-NAME", "O", "B-LOC"]]
    assert table.remarks == ("tags in IOBES, taken as IOB2",)


def test_half_an_emoji_is_a_replacement_character(tmp_path: Path, tiny_model: Path) -> None:
    """As the dumps of short messages hold it, cut at so many units of UTF-16."""
    row = '{"text": "a \\ud83d b \\ud83d\\ude00", "label": "x"}\n{"text": "c", "label": "\\uDE00"}\n'
    table = read("classification", write(tmp_path / "a.jsonl", row))
    assert shown(table) == [("a \ufffd b \U0001f600", "x"), ("c", "\ufffd")]
    assert len(TextTokenizer.load(tiny_model).encode(table.texts).offsets) == 3
    assert shown(read("classification", write(tmp_path / "a.json", f"[{','.join(row.splitlines())}]"))) == shown(table)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.txt", "a.jsonl"])
def test_a_file_in_utf16_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text\tlabel\none\tx\n", encoding="utf-16")
    with pytest.raises(UserError, match=rf"{name} is UTF-16; UTF-8 is meant: iconv"):
        read("classification", tmp_path / name, bad_rows="skip")


def test_a_json_file_may_hold_a_single_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"text": "one", "label": "x"}')
    assert shown(read("classification", path)) == [("one", "x")]
    path = write(tmp_path / "a.json", '{"tokens": ["Ada", "ran"], "ner_tags": ["B-PER", "O"]}')
    assert read("token_classification", path).words == [["Ada", "ran"]]
    path = write(tmp_path / "a.json", '{"text": "one", "labels": {"joy": 1, "fear": 0}}')
    assert shown(read("multi_label", path)) == [("one", ("joy",))]
    for several in ('{"test": ["one"], "name": "x"}', '{"articles": []}', '{"a": [{"text": "one"}]}', '{"a": {}}'):
        with pytest.raises(UserError, match=r"holds an object with keys .*one of train among its keys is meant"):
            read("classification", write(tmp_path / "a.json", several))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.conll"])
def test_carriage_returns_for_newlines_are_refused(tmp_path: Path, name: str) -> None:
    task = "token_classification" if name == "a.conll" else "classification"
    (tmp_path / name).write_bytes(b"Ada\tB-PER\rran\tO\r")
    with pytest.raises(UserError, match=rf"{name}: its lines end in carriage returns alone.*tr .* < {name} > NEW"):
        read(task, tmp_path / name, bad_rows="skip")
    for content in (b"one\rtwo\nthree\n", b"one\r"):
        (tmp_path / "b.txt").write_bytes(content)
        assert read("classification", tmp_path / "b.txt", labelled=False).texts == content.decode().strip().split("\n")


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['joy' 'love']", ("joy", "love")),
        ("['very good'\n 'bad']", ("very good", "bad")),
        ("[ 2 27]", ("2", "27")),
        ("[2. 3.]", ("2", "3")),
        ("['it\\'s', 'x']", ("it's", "x")),
        ("[joy, love]", ("joy", "love")),
        ("[]", ()),
    ],
)
def test_lists_of_labels_that_a_table_printed(tmp_path: Path, cell: str, labels: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.csv", f'text,labels\none,"{cell}"\ntwo,"{cell}"\n')
    assert read("multi_label", path).labels == [labels, labels]


def test_minus_one_beside_numbered_classes_is_no_label(tmp_path: Path) -> None:
    """As `datasets` writes SNLI where its annotators did not agree."""
    path = write(tmp_path / "a.jsonl", "".join(f'{{"text": "t{n}", "label": {n}}}\n' for n in (2, 0, 1, -1)))
    with pytest.raises(UserError, match=r"line 4: no label \(-1, beside classes that are numbered from 0\)"):
        read("classification", path)
    table = read("classification", path, bad_rows="skip")
    assert (table.texts, table.skipped) == (["t2", "t0", "t1"], {"no label": 1})
    polar = write(tmp_path / "b.jsonl", "".join(f'{{"text": "t{n}", "label": {n}}}\n' for n in (0, 1, -1)))
    assert read("classification", polar).known_labels == {"-1", "0", "1"}


def test_a_number_that_is_none_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1.0, float("nan")]}), path)
    with pytest.raises(UserError, match="line 2: no label"):
        read("classification", path)


def test_a_column_may_be_absent_from_the_first_row(tmp_path: Path) -> None:
    rows = '{"text": "a", "label": "x"}\n{"text": "b", "text_pair": "p", "label": "y"}\n'
    with pytest.raises(UserError, match=r"line 1: a column is missing \(text_pair\)"):
        read("classification", write(tmp_path / "a.jsonl", rows))
    groups = '{"anchor": "a", "positive": "b"}\n{"anchor": "c", "positive": "d", "negative": "e"}\n'
    table = read("embedding", write(tmp_path / "b.jsonl", groups), bad_rows="skip")
    assert (table.texts, table.pairs, table.negatives) == (["c"], ["d"], ["e"])


def test_a_value_that_occurs_again_is_no_name_of_a_column(tmp_path: Path) -> None:
    rows = [("I love it", "score"), ("meh", "price"), ("ok", "score"), ("hm", "price")]
    path = write(tmp_path / "a.tsv", "".join(f"{text}\t{label}\n" for text, label in rows))
    assert shown(read("classification", path)) == rows


def test_names_above_many_classes_are_no_row(tmp_path: Path) -> None:
    rows = [(f"what about number {n}", f"intention {n % 97}") for n in range(400)]
    path = write(
        tmp_path / "a.csv", "Utterance text,Intention\n" + "".join(f"{text},{label}\n" for text, label in rows)
    )
    assert shown(read("classification", path)) == rows


def test_a_txt_file_with_labels_is_predicted_without_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a,b\tneg\nfoo\tpos\nbar\tpos\n")
    found = TASKS["classification"].read(str(path), "test", DataSettings(), labelled=False, known=Known({"neg", "pos"}))
    assert found.texts == ["a,b", "foo", "bar"]
    path = write(tmp_path / "b.txt", "sentence\tlabel\nfoo\tpos\n")
    found = TASKS["classification"].read(str(path), "test", DataSettings(), labelled=False, known=Known({"neg", "pos"}))
    assert found.texts == ["foo"]


def test_the_classes_of_a_data_set_are_those_of_the_column_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(list):
        features: ClassVar = {
            "text": SimpleNamespace(),
            "coarse_label": SimpleNamespace(names=["ABBR", "DESC"]),
            "fine_label": SimpleNamespace(names=["ABBR:abb", "ABBR:exp", "DESC:x"]),
        }

    rows = Rows({"text": "t", "coarse_label": n // 2, "fine_label": n} for n in range(3))
    rows.append({"text": "withheld", "coarse_label": -1, "fine_label": None})
    datasets = SimpleNamespace(get_dataset_split_names=lambda *_: ["train"], load_dataset=lambda *_, split: rows)
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    settings = DataSettings(label="fine_label", bad_rows="skip")
    table = TASKS["classification"].read("hf:trec", "train", settings)
    assert (table.labels, table.label_names) == (["ABBR:abb", "ABBR:exp", "DESC:x"],) * 2


def test_a_list_among_the_noted_kinds_costs_no_other_column_its_classes(tmp_path: Path) -> None:
    """As `datasets` before its fourth release notes lists."""
    kinds = {
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "notes": [{"dtype": "string", "_type": "Value"}],
        "marks": [{"names": ["O", "B-X"], "_type": "ClassLabel"}],
    }
    columns = {"text": ["a", "b"], "label": [0, 1], "notes": [["x"], []], "marks": [[0, 1], [0]]}
    note = json.dumps({"info": {"features": kinds}})
    table = pyarrow.table(columns).replace_schema_metadata({"huggingface": note})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert shown(read("classification", tmp_path / "a.parquet")) == [("a", "neg"), ("b", "pos")]
    assert [row.values["marks"] for row in read_rows(tmp_path / "a.parquet")] == [["O", "B-X"], ["O"]]


GERMEVAL = (
    "#\thttp://de.wikipedia.org/wiki/TUM [2009-10-17]\n1\tDer\tO\tO\n2\tTroia\tB-LOC\tO\n3\tTUM\tB-ORG\tB-LOC\n\n"
    "#\thttp://de.wikipedia.org/wiki/X [2009]\n1\t#\tO\tO\n2\tAda\tB-PER\tO\n\n"
)


def test_words_that_are_numbered_are_read_from_the_next_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "NER-de-train.tsv", GERMEVAL)
    with pytest.raises(UserError, match=r"columns 2, 3 hold tags, as it seems; which are meant\? --data\.tags NUMBER"):
        read("token_classification", path)
    with caplog.at_level(logging.INFO, "jaxlm"):
        table = read("token_classification", path, tags="2")
    assert table.words == [["Der", "Troia", "TUM"], ["#", "Ada"]]
    assert table.tags == [["O", "B-LOC", "B-ORG"], ["O", "B-PER"]]
    assert "words in column 1 and tags in column 2, of 4 from 0" in caplog.text
    assert read("token_classification", path, tags="3").tags == [["O", "O", "B-LOC"], ["O", "O"]]
    single = write(tmp_path / "a.conll", "".join(f"{n}\tword\tB-X\tsure\n" for n in (1, 2)) + "\n1\tw\tO\tno\n")
    assert read("token_classification", single).tags == [["B-X", "B-X"], ["O"]]


UNIVERSAL = """\
# sent_id = 1
# text = They don't buy old books .
1\tThey\tthey\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tbuy\tbuy\tVERB\tVBP\t_\t0\troot\t_\tSpaceAfter=No
4.1\tbought\tbuy\tVERB\t_\t_\t_\t_\t_\t_

# text = one two three four five six seven
1\t#\t#\tSYM\tNN\t_\t0\troot\t_\t_
"""


@pytest.mark.parametrize("name", ["en_ewt-ud-dev.conllu", "train.txt"])
def test_universal_dependencies_are_read_as_their_format_says(tmp_path: Path, name: str) -> None:
    table = read("token_classification", write(tmp_path / name, UNIVERSAL))
    assert table.words == [["They", "do", "n't", "buy"], ["#"]]
    assert table.tags == [["PRON", "AUX", "PART", "VERB"], ["SYM"]]
    finer = read("token_classification", tmp_path / name, tags="4")
    assert finer.tags == [["PRP", "VBP", "RB", "VBP"], ["NN"]]


def test_a_comment_with_as_many_cells_as_there_are_columns(tmp_path: Path) -> None:
    content = "# id 1 domain=en\nEU NN x B-ORG\n\n# id 77 domain=en\n# SYM x O\nPeter NN x B-PER\n"
    table = read("token_classification", write(tmp_path / "a.conll", content))
    assert table.words == [["EU"], ["#", "Peter"]]
    flat = write(tmp_path / "b.conll", "the\tDET\n\n# one\ncat\tNOUN\n\n#\tSYM\n1\tNUM\n")
    assert read("token_classification", flat).words == [["the"], ["cat"], ["#", "1"]]


def test_tagged_words_with_commas_are_no_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "ner_dataset.csv", "Sentence #,Word,POS,Tag\nSentence: 1,Thousands,NNS,O\n,of,IN,O\n")
    with pytest.raises(
        UserError, match=r"ner_dataset\.csv: tagged words are read from columns parted by tabs or spaces"
    ):
        read("token_classification", path)


def test_tags_that_the_model_knows_tell_words_from_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "pos.txt", "the DET\ncat NOUN\n\nsleeps VERB\n")
    kind, settings = TASKS["token_classification"], DataSettings()
    known = {"DET", "NOUN", "VERB", "ADJ"}
    found = kind.read(str(path), "test", settings, labelled=False, known=Known(known))
    assert (found.words, found.tags) == ([["the", "cat"], ["sleeps"]], None)
    with pytest.raises(UserError, match=r"blank lines part them, as in tagged words.*: --data\.words 0"):
        kind.read(str(path), "test", settings, labelled=False, known=Known({"DET"}))
    told = kind.read(str(path), "test", DataSettings(words="0"), labelled=False, known=Known({"DET"}))
    assert told.words == found.words


def test_masked_texts_are_lines_and_a_corpus_has_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one [MASK]\n\ntwo [MASK]\nthree [MASK]\n")
    assert read("masked_lm", path, labelled=False).texts == ["one [MASK]", "two [MASK]", "three [MASK]"]
    assert read("masked_lm", path).texts == ["one [MASK]", "two [MASK]\nthree [MASK]"]


@pytest.mark.parametrize("comma", ["i feel low, tired", "i feel low"])
@pytest.mark.parametrize("sign", [";", "\t"])
def test_what_parts_a_csv_is_told_by_its_first_lines_not_by_one(tmp_path: Path, sign: str, comma: str) -> None:
    texts = [comma, "great", 'a "quoted', "yes, no, perhaps" if "," in comma else "yes"]
    path = write(tmp_path / "a.csv", "".join(f"{text}{sign}{('joy', 'fear')[n % 2]}\n" for n, text in enumerate(texts)))
    if sign == ";":  # where a quote begins a field it has to end
        path = write(path, path.read_text().replace('a "quoted', "a quoted"))
        texts[2] = "a quoted"
    found = shown(read("classification", path, header="no"))
    assert found == [(text, ("joy", "fear")[n % 2]) for n, text in enumerate(texts)]


def test_columns_with_tabs_between_them_have_no_quotes_in_a_csv_either(tmp_path: Path) -> None:
    rows = ['main\t3.8\tA woman eats.\t"Nobody eats, he said', 'main\t2.5\tThe cat"\tThe cat is black.']
    path = write(tmp_path / "sts.csv", "\n".join(["main\t1.0\ta\tb", *rows]))
    assert shown(read("regression", path, text="2", text_pair="3", label="1")) == [
        ("a", "b", 1.0), ("A woman eats.", '"Nobody eats, he said', 3.8), ('The cat"', "The cat is black.", 2.5),
    ]  # fmt: skip


SPLIT = [
    ("train", "a b", "c d", 5.0),
    ("dev", "e f", "g h", 4.0),
    ("train", "i j", "k l", 3.0),
    ("test", "m", "n", 1.0),
]


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_rows_that_say_which_split_they_belong_to_are_read_by_it(
    tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["split\tsentence1\tsentence2\tscore", *("\t".join(map(str, row)) for row in SPLIT)]
    path = write(tmp_path / "stsbenchmark.tsv", "\n".join(lines))
    with caplog.at_level(logging.INFO, "jaxlm"):
        for split, count in (("train", 2), ("dev", 1), ("test", 1)):
            table = TASKS[task].read(str(path), split, DataSettings())
            assert table.texts == [text for of, text, *_ in SPLIT if of == split]
            assert len(table) == count
    assert "2 of 4 rows are those of train, by column split" in caplog.text
    assert len(TASKS[task].read(str(path), "test", DataSettings(), labelled=False)) == 4  # to predict, all
    no_dev = write(path, "\n".join(line for line in lines if not line.startswith("dev")))
    with pytest.raises(UserError, match="has no rows of dev; it has test, train"):
        TASKS[task].read(str(no_dev), "dev", DataSettings())
    alike = write(
        path, "\n".join([lines[0], *(line.replace("dev", "train").replace("test", "train") for line in lines[1:])])
    )
    assert len(TASKS[task].read(str(alike), "dev", DataSettings())) == 4


OF_A_SPLIT: dict[str, dict[str, Any]] = {
    "token_classification": {"tokens": ["Ada", "left"], "ner_tags": ["B-PER", "O"]},
    "intent_slots": {"tokens": ["Ada", "left"], "tags": ["B-PER", "O"], "intent": "leave"},
    "question_answering": {"question": "who", "context": "Ada left", "answers": {"text": ["Ada"], "answer_start": [0]}},
    "masked_lm": {"text": "Ada left"},
    "classification": {"text": "Ada left", "label": "x"},
    "ranking": {"query": "who", "passage": "Ada", "label": 1},
}


@pytest.mark.parametrize("task", OF_A_SPLIT)
def test_rows_of_every_kind_say_which_split_they_belong_to(
    tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    splits = ["training", "dev", "Train", "test", None, "unsupervised", "train", ""]
    rows = [OF_A_SPLIT[task] | {"id": f"q{n}", "split": split} for n, split in enumerate(splits)]
    path = write(tmp_path / "all.jsonl", "\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.INFO, "jaxlm"):
        counts = [len(TASKS[task].read(str(path), split, DataSettings())) for split in ("train", "dev", "test")]
    assert counts == [3, 1, 1]
    assert "3 of 8 rows are those of train, by column split" in caplog.text
    assert len(TASKS[task].read(str(path), "test", DataSettings(), labelled=False)) == 8
    write(path, "\n".join(json.dumps(row) for row in rows if row["split"] != "dev"))
    with pytest.raises(UserError, match="its column split has no rows of dev; it has test, train, training, unsuperv"):
        TASKS[task].read(str(path), "dev", DataSettings())
    if task == "question_answering":
        listed = write(tmp_path / "all.json", json.dumps(rows))
        assert len(TASKS[task].read(str(listed), "train", DataSettings())) == 3
    write(path, "\n".join(json.dumps(row | {"split": f"part {row['id']}"}) for row in rows))
    assert len(TASKS[task].read(str(path), "dev", DataSettings())) == 8  # no such splits


def test_a_cell_without_0_or_1_is_an_error_of_its_row(tmp_path: Path) -> None:
    rows = ["text,toxic,threat,replies", "you fool,1.0,,3", "thanks,0.0,0.0,1", "hm,0.0,1.0,", "fine,0.0,1.0,2"]
    path = write(tmp_path / "jigsaw.csv", "\n".join(rows))
    with pytest.raises(UserError, match=r"line 2: neither 0 nor 1 for a label \(threat\)"):
        read("multi_label", path)
    table = read("multi_label", path, bad_rows="skip")
    assert (table.labels, table.label_names) == ([(), ("threat",), ("threat",)], ["toxic", "threat"])


def test_a_column_that_is_no_label_for_a_strange_cell_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["text,toxic,threat,insult", "you fool,1,0,x", *(f"text {number},0,0,1" for number in range(30))]
    path = write(tmp_path / "jigsaw.csv", "\n".join(rows))
    assert read("multi_label", path).label_names == ["toxic", "threat"]
    assert "column insult is no label: it holds 0 and 1, but for line 2 ('x')" in caplog.text


@pytest.mark.parametrize("cell", ["null", "[null]", "NaN", "[NaN, null]"])
def test_no_list_of_labels_is_not_an_empty_one(tmp_path: Path, cell: str) -> None:
    lines = [
        '{"text": "a", "labels": []}',
        f'{{"text": "b", "labels": {cell}}}',
        '{"text": "c", "labels": ["x", null]}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(UserError, match="line 2: no label"):
        read("multi_label", path)
    assert read("multi_label", path, bad_rows="skip").labels == [(), ("x",)]


def test_labels_of_a_json_list_may_be_numbers(tmp_path: Path) -> None:
    rows = [["a good film", 1], ["a bad film", 0], ["so so", 1]]
    path = write(tmp_path / "a.json", json.dumps({"train": rows, "dev": rows[:2]}))
    assert shown(read("classification", path)) == [("a good film", "1"), ("a bad film", "0"), ("so so", "1")]


def test_columns_of_0_and_1_are_labels_by_their_names(tmp_path: Path) -> None:
    rows = ["id,comment_text,toxic,insult,threat", "0a,you fool,1,1,0", "0b,thanks,0,0,0", "0c,hm,0,0,1"]
    path = write(tmp_path / "jigsaw.csv", "\n".join(rows))
    table = read("multi_label", path)
    assert table.labels == [("toxic", "insult"), (), ("threat",)]
    assert table.label_names == ["toxic", "insult", "threat"]
    with pytest.raises(
        UserError,
        match=r"column toxic holds nothing but 0 and 1\. Where each label has a column of its own",
    ):
        read("multi_label", path, label="toxic")
    lists = write(tmp_path / "lists.jsonl", '{"text": "a", "labels": [0]}\n{"text": "b", "labels": ["1"]}\n')
    assert read("multi_label", lists).labels == [("0",), ("1",)]
    lines = [{"text": "a", "joy": 1, "fear": False}, {"text": "b", "joy": 0, "fear": False}]
    found = read("multi_label", write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert found.labels == [("joy",), ()]


def test_labels_that_are_columns_are_read_from_dev_whether_train_has_them_or_not(tmp_path: Path) -> None:
    """A label that is in no row of train is one of the model's outputs all the same."""
    train = ["text,toxic,threat", "you fool,1,0", "thanks,0,0"]
    dev = ["text,toxic,threat,replies", "i find you,1,1,1", "thanks,0,0,0", "hm,0,1,0"]
    paths = [str(write(tmp_path / f"{name}.csv", "\n".join(rows))) for name, rows in (("train", train), ("dev", dev))]
    config = Config(task="multi_label", data=DataSettings(train=paths[0], dev=paths[1]))
    assert _read_tables(config)["dev"].labels == [("toxic", "threat"), (), ("threat",)]
    write(tmp_path / "dev.csv", "\n".join(dev).replace("threat", "Threat!"))
    with pytest.raises(UserError, match=r"dev.csv: each label has a column of its own, and there is none for threat"):
        _read_tables(config)
    write(tmp_path / "dev.csv", "\n".join(dev).replace("i find you,1,1", "i find you,1,2"))
    with pytest.raises(UserError, match=r"dev.csv, line 2: neither 0 nor 1 for a label \(threat\)"):
        _read_tables(config)


@pytest.mark.parametrize("task", ["classification", "ranking"])
@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_a_json_list_are_all_of_a_kind(tmp_path: Path, task: str, turned: bool) -> None:
    names = {"classification": ("text", "label"), "ranking": ("query", "passage")}[task]
    rows = [dict(zip(names, ("one", "two"), strict=True)), ["three", "four"], dict(zip(names, ("a", "b"), strict=True))]
    path = write(tmp_path / "a.json", json.dumps(rows[1:] + rows[:1] if turned else rows))
    kind = "an object among lists" if turned else "a list among objects"
    with pytest.raises(UserError, match=f"item 2: {kind}"):
        read(task, path)


@pytest.mark.parametrize("task", ["ranking", "embedding"])
def test_ids_are_no_texts_unless_they_are_chosen(tmp_path: Path, task: str) -> None:
    path = write(tmp_path / "triples.tsv", "".join(f"{1000 + n}\t{n}\t{n % 2}\n" for n in range(6)))
    with pytest.raises(
        UserError, match=r"every text is a whole number, such as 1000; these look like ids\. Columns: 0"
    ):
        read(task, path)
    assert len(read(task, path, text="0", text_pair="1", label="2")) == 6


def test_a_preset_of_pairs_wants_a_second_text(tmp_path: Path) -> None:
    rows = [{"question": f"is {n} even", "reason": "numbers", "label": n % 2} for n in range(4)]
    path = write(tmp_path / "asked.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"which column is the second text\? Columns: question, reason, label"):
        read("classification", path, pairs=True)
    assert read("classification", path, pairs=True, text_pair="reason").pairs == ["numbers"] * 4


def test_one_column_is_not_offered_for_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "emotion.txt", "i feel low;sadness\ni am great;joy\n")
    with pytest.raises(UserError, match=r"which column is the label\? There is but one column\. Columns have tabs"):
        read("classification", path)


def test_a_score_is_no_class_where_another_column_has_one(tmp_path: Path) -> None:
    row = {"title": "a title", "body": "a text", "score": 17, "sentiment": "joy"}
    path = write(tmp_path / "reddit.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"sentiment": "fear"}))
    assert shown(read("classification", path)) == [("a text", "joy"), ("a text", "fear")]
    assert read("regression", path).labels == [17.0, 17.0]


def test_a_file_in_another_encoding_is_told_how_to_be_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "spam.csv"
    path.write_bytes("text,label\na,ham\nprix : 5 £,spam\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"line 3: not UTF-8 \(.*iconv -f CP1252 -t UTF-8 FILE > NEW\)"):
        read("classification", path)


@pytest.mark.parametrize(
    ("task", "name", "content"),
    [
        ("token_classification", "esp.train", "España B-LOC\n"),
        ("token_classification", "a.jsonl", '{"tokens": ["España"], "tags": ["B-LOC"]}\n'),
        ("token_classification", "a.json", '[{"tokens": ["España"], "tags": ["B-LOC"]}]\n'),
        ("question_answering", "a.jsonl", '{"question": "¿Qué?", "context": "Todo", "answers": []}\n'),
        ("question_answering", "a.json", '{"data": "España"}\n'),
    ],
)
def test_words_and_questions_in_another_encoding_are_told_so(
    tmp_path: Path, task: str, name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8.*\(.*iconv -f CP1252 -t UTF-8 FILE > NEW\)"):
        read(task, path)


def folders(tmp_path: Path) -> Path:
    texts = {"pos/1_9.txt": "good\n\nfilm", "pos/0_7.txt": "fine", "neg/0_1.txt": "\ufeffbad", "unsup/0_0.txt": "?"}
    for name, text in (texts | {"pos/.DS_Store": "x", ".git/a": "x", "labels.txt": "x"}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text)
    return tmp_path


def test_a_directory_may_have_a_folder_of_texts_for_each_class(tmp_path: Path) -> None:
    table = read("classification", folders(tmp_path))
    assert shown(table) == [("bad", "neg"), ("fine", "pos"), ("good\n\nfilm", "pos")]
    assert table.places[1] == "pos/0_7.txt"


def test_a_file_of_a_class_that_cannot_be_read_is_named_or_left_out(tmp_path: Path) -> None:
    (folders(tmp_path) / "pos" / "2_8.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"pos/2_8\.txt: not UTF-8"):
        read("classification", tmp_path)
    table = read("classification", tmp_path, bad_rows="skip")
    assert len(table) == sum(table.skipped.values()) + 2 == 3


@pytest.mark.parametrize("made", [(), ("pos/a.txt",), ("pos/a.txt", "neg/more/a.txt")])
def test_a_directory_of_anything_else_is_refused(made: tuple[str, ...], tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True)
        write(tmp_path / name, "x")
    with pytest.raises(UserError, match="not one of a folder of texts for each class; a file is meant"):
        read("classification", tmp_path)


FASTTEXT = "__label__good A fine  day \n\n__label__bad\t__label__2 he said, no\n"


def test_lines_of_fasttext_are_labels_and_a_text(tmp_path: Path) -> None:
    assert shown(read("multi_label", write(tmp_path / "a.txt", FASTTEXT))) == [
        ("A fine  day", ("good",)),
        ("he said, no", ("bad", "2")),
    ]
    assert shown(read("classification", write(tmp_path / "a.txt", FASTTEXT[:25]))) == [("A fine  day", "good")]
    assert read("classification", tmp_path / "a.txt", labelled=False).texts == ["A fine  day"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [("__label__bad\n", "no text after its label"), ("fine __label__good\n", "no __label__ at its beginning")],
)
def test_a_line_of_fasttext_without_its_parts_is_named(line: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.txt, line 4: {problem}"):
        read("multi_label", write(tmp_path / "a.txt", FASTTEXT + line))


@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_columns_of_a_txt_file_are_told_by_its_tabs(tmp_path: Path, task: str) -> None:
    """Whether labels are wanted, and known, or not."""
    names = "text\tlabel" if task == "classification" else "sentence1\tsentence2"
    path = write(tmp_path / "rows.txt", names + "\n" + "".join(f"a good one {n}\tsome{n % 2}\n" for n in range(4)))
    table = read(task, path, labelled=False)
    assert table.texts == [f"a good one {n}" for n in range(4)]
    lines = write(tmp_path / "lines.txt", "a\tb\nc\n")
    assert read(task, lines, labelled=False).texts == ["a\tb", "c"]


def test_columns_of_0_and_1_that_the_model_has_no_label_for_are_about_something_else(tmp_path: Path) -> None:
    path = write(tmp_path / "toxic.csv", "text,toxic,rude,reviewed\na,1,0,1\nb,0,1,0\n")
    found = TASKS["multi_label"].read(str(path), "test", DataSettings(), labelled=True, known=Known({"toxic", "rude"}))
    assert found.labels == [("toxic",), ("rude",)]
