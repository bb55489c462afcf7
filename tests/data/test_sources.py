import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataSettings
from jaxlm.data.columns import Known
from jaxlm.data.sources import LabelKind, Table, read_table, table_of_texts
from jaxlm.errors import UserError

ROWS = [("a fine day", "good"), ('he said "no", twice', "bad"), ("日本語 text", "good")]


def read(path: Path, kind: LabelKind | None = "class", split: str = "train", **settings: str) -> Table:
    return read_table(str(path), split, DataSettings(**settings), label_kind=kind)


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        file.write(data)
    return path


CSV = 'text,label\na fine day,good\n"he said ""no"", twice",bad\n日本語 text,good\n'
TSV = "".join(f"{text}\t{label}\n" for text, label in ROWS)
JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", CSV),
        ("a.tsv", TSV),
        ("a.tsv.xz", TSV),
        ("bom.tsv", "\ufeff" + TSV),
        ("crlf.tsv", TSV.replace("\n", "\r\n")),
        ("no_last_newline.tsv", TSV.rstrip("\n")),
        ("swapped.tsv", "".join(f"{label}\t{text}\n" for text, label in ROWS)),
        ("header.tsv", "label\ttext_a\n" + "".join(f"{label}\t{text}\n" for text, label in ROWS)),
        ("a.jsonl", JSONL),
        ("a.jsonl.gz", JSONL),
    ],
)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str, content: str) -> None:
    table = read(write(tmp_path / name, content))
    assert list(zip(table.texts, table.labels or [], strict=True)) == ROWS


def test_parquet_gives_the_same_table(tmp_path: Path) -> None:
    columns = {"label": [label for _, label in ROWS], "text": [text for text, _ in ROWS]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert list(zip(table.texts, table.labels or [], strict=True)) == ROWS


def test_columns_are_chosen_by_name_or_position(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,first,second,kind\n1,x y,z,7\n2,u v,w,8\n")
    by_name = read(path, text="first", text_pair="second", label="kind", header="yes")
    by_position = read(path, text="1", text_pair="2", label="3", header="yes")
    assert by_name.texts == by_position.texts == ["x y", "u v"]
    assert by_name.pairs == by_position.pairs == ["z", "w"]
    assert by_name.labels == by_position.labels == ["7", "8"]


def test_a_txt_file_is_one_text_a_line(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", "one\ntwo words\n"), kind=None).texts == ["one", "two words"]


BAD = {
    "columns.tsv": ("a b\t1\nc d\t0\te\n", "line 2", "number of columns"),
    "utf8.tsv": (b"a b\t1\nc \xff\t0\n", "line 2", "UTF-8"),
    "empty.tsv": ("a b\t1\n \t0\n", "line 2", "empty text"),
    "label.tsv": ("a b\t1\nc d\t\n", "line 2", "no label"),
    "json.jsonl": ('{"text": "a", "label": 1}\n{"text": \n', "line 2", "no JSON"),
    "array.jsonl": ('{"text": "a", "label": 1}\n[1]\n', "line 2", "no JSON object"),
    "missing.jsonl": ('{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2", "column is missing"),
    "number.jsonl": ('{"text": "a", "label": 1}\n{"text": 0, "label": 1}\n', "line 2", "no string"),
    "quote.csv": ('text,label\nab,1\n"ab"c,0\n', "line 3", "no csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_row_is_an_error_with_file_and_line_or_skipped_and_counted(tmp_path: Path, name: str) -> None:
    content, line, problem = BAD[name]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        read(path)
    for part in (str(path), line, problem):
        assert part in str(error.value)
    table = read(path, bad_rows="skip")
    assert len(table) == 1
    assert sum(table.skipped.values()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.tsv", None, "no such file"),
        ("empty.tsv", "", "no rows"),
        ("blank.csv", "\n\n", "no rows"),
        ("only_header.csv", "text,label\n", "no rows"),
        ("strange.doc", "a\t1\n", "should end in one of"),
        ("a.tsv.gz", None, "damaged"),
        ("a.parquet", "nonsense", "no parquet file"),
        ("unlabelled.csv", "text,other,more\na,b,c\n", "which column is the label"),
        ("three.tsv", "a\tb\tc\n", "which column is the label"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(TSV.encode())[:-12])
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert name in str(error.value)


def test_an_unknown_column_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Columns: text, label"):
        read(write(tmp_path / "a.csv", CSV), text="sentence")


def test_an_unknown_scheme_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match="tfds:, hf:, docs:"):
        read_table("s3:bucket", "train", DataSettings(), label_kind="class")


def test_texts_of_a_stream_keep_their_order_and_bad_ones_are_named() -> None:
    assert table_of_texts("stdin", b"b\r\na\n".split(b"\n"), DataSettings()).texts == ["b", "a"]
    with pytest.raises(UserError, match="line 2: empty text"):
        table_of_texts("stdin", b"b\n\na\n".split(b"\n"), DataSettings())
    with pytest.raises(UserError, match="line 1: not UTF-8"):
        table_of_texts("stdin", [b"\xff"], DataSettings())


def test_blank_lines_part_the_paragraphs_of_a_corpus_and_are_no_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n\n  \ntwo words\n")
    table = read_table(str(path), "train", DataSettings(), label_kind=None, running_text=True)
    assert table.texts == ["one", "two words"]
    with pytest.raises(UserError, match="line 2: empty text"):
        read(path, kind=None)


@pytest.mark.parametrize(
    ("content", "settings", "documents"),
    [
        ("\none\ntwo\n\n\nthree\n", {}, [("one\ntwo", "line 2"), ("three", "line 6")]),
        ("\none\ntwo\n\nthree\n", {"documents": "line"}, [("one", "line 2"), ("two", "line 3"), ("three", "line 5")]),
        ("\none\ntwo\n\nthree\n", {"documents": "file"}, [("one\ntwo\n\nthree", "line 1")]),
        ("\none\ntwo\n\n", {}, [("one", "line 2"), ("two", "line 3")]),
        ("", {}, None),
        ("\n\n", {"documents": "file"}, None),
    ],
)
def test_a_corpus_is_parted_into_documents(
    tmp_path: Path, content: str, settings: dict[str, Any], documents: list[tuple[str, str]] | None
) -> None:
    path = write(tmp_path / "a.txt", content)
    asked = DataSettings(**settings)
    if documents is None:
        with pytest.raises(UserError, match="no rows"):
            read_table(str(path), "train", asked, label_kind=None, running_text=True)
    else:
        table = read_table(str(path), "train", asked, label_kind=None, running_text=True)
        assert list(zip(table.texts, table.places, strict=True)) == documents


def test_a_bad_line_of_a_document_is_named_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\ntw\xffo\nthree\n\nfour\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2: not UTF-8"):
        read_table(str(path), "train", DataSettings(), label_kind=None, running_text=True)
    table = read_table(str(path), "train", DataSettings(bad_rows="skip"), label_kind=None, running_text=True)
    assert (table.texts, table.skipped) == (["one\nthree", "four"], {"not UTF-8": 1})


def test_labels_are_names_numbers_or_sets(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": 1.0}\n{"text": "two", "label": 2.5}\n')
    assert read(path, "class").labels == ["1", "2.5"]
    assert read(path, "number").labels == [1.0, 2.5]
    path = write(tmp_path / "b.jsonl", '{"text": "one", "labels": ["x", 3]}\n{"text": "two", "labels": []}\n')
    assert read(path, "set").labels == [("x", "3"), ()]
    path = write(tmp_path / "c.tsv", "text\tlabels\none\tx, y,x\ntwo\t\n")
    table = read(path, "set")
    assert table.labels == [("x", "y"), ()]
    assert table.known_labels == {"x", "y"}


@pytest.mark.parametrize("mark", ["|", ";"])
def test_names_of_labels_are_parted_by_bars_or_semicolons_where_there_are_any(tmp_path: Path, mark: str) -> None:
    rows = f"text\tlabels\none\tArts, Crafts{mark} Sport\ntwo\tArts, Crafts\nthree\tSport\n"
    path = write(tmp_path / "a.tsv", rows)
    assert read(path, "set").labels == [("Arts, Crafts", "Sport"), ("Arts, Crafts",), ("Sport",)]
    path = write(tmp_path / "b.tsv", "text\tlabels\none\tArts, Crafts\ntwo\tSport,Arts\n")
    known = read_table(
        str(path), "test", DataSettings(), label_kind="set", known=Known({"Arts, Crafts", "Sport", "Arts"})
    )
    assert known.labels == [("Arts, Crafts",), ("Sport", "Arts")]


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        ("number", '{"text": "x", "label": "much"}', "line 2: a label that is no number"),
        ("number", '{"text": "x", "label": "nan"}', "line 2: a label that is no finite number"),
        ("number", '{"text": "x", "label": null}', "line 2: no label"),
        ("number", '{"text": "x", "label": [1]}', "line 2: a label that is neither name nor number"),
        ("class", '{"text": "x", "label": {}}', "line 2: a label that is neither name nor number"),
        ("class", '{"text": "x", "label": ""}', "line 2: no label"),
        ("set", '{"text": "x"}', "line 2: a column is missing"),
        ("set", '{"text": 3, "label": []}', "line 2: text that is no string"),
    ],
)
def test_a_broken_label_is_named_or_counted(tmp_path: Path, kind: LabelKind, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "fine", "label": "1"}}\n{line}\n')
    with pytest.raises(UserError, match=message):
        read(path, kind)
    assert sum(read(path, kind, bad_rows="skip").skipped.values()) == 1


def test_a_json_file_holds_rows_or_splits_of_rows(tmp_path: Path) -> None:
    rows = [["a text", "one"], ["more text", "two"]]
    assert read(write(tmp_path / "a.json", json.dumps(rows))).labels == ["one", "two"]
    named = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert read(write(tmp_path / "b.json.xz", json.dumps(named))).texts == ["a", "b"]
    parts = {"train": rows, "oos_train": [["no text of ours", "oos"]], "val": rows[:1], "oos_val": [], "test": rows}
    path = write(tmp_path / "clinc.json", json.dumps(parts))
    table = read(path)
    assert table.labels == ["one", "two", "oos"]
    assert table.places == ["item 1 of train", "item 2 of train", "item 1 of oos_train"]
    assert len(read(path, split="dev")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.json, line 1: no JSON"),
        (b"\xff[]", "a.json: not UTF-8 at byte 0"),
        ('[{"text": "a", "label": "x"}]'.encode("utf-16"), "a.json is UTF-16; UTF-8 is meant: iconv"),
        ("[]", "no rows"),
        ("3", "it holds no list of rows"),
        ('{"dev": []}', "an object with keys dev; one of train among its keys is meant"),
        ('{"train": 3}', "train is no list"),
        ('{"train": ["x"]}', "item 1 of train: neither a list of values nor an object"),
        ('{"train": [["a", "b"], ["c"]]}', "item 2 of train: wrong number of columns"),
        ('[{"text": "a", "label": "x"}, {"label": "y"}]', "item 2: a column is missing"),
        ('[["some words", "x"], ["", "y"]]', "item 2: empty text"),
    ],
)
def test_a_broken_json_file_is_answered(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.json", content))


def test_a_txt_file_with_labels_is_one_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a text\tone\nmore text\ttwo\nsome text\tone\n")
    assert read(path).labels == ["one", "two", "one"]
    assert read(path, None).texts[0] == "a text"


def test_the_columns_of_glues_own_files_are_known(tmp_path: Path) -> None:
    lines = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tOne "said".\tTwo.\n0\t9\t10\tThree.\tFour.\n'
    table = read(write(tmp_path / "mrpc.tsv", lines))
    assert (table.texts, table.pairs) == (['One "said".', "Three."], ["Two.", "Four."])
    assert table.labels == ["1", "0"]
