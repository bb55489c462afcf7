import dataclasses
import gzip
import json
import logging
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataSettings
from jaxlm.errors import UserError
from jaxlm.search.collection import DOCUMENTS, JUDGED_QUERIES, QUERIES, Columns, Entry, Reader, paths_of

from .broken import DOCUMENT_FILES

EXPECTED = [Entry("d1", "A title", "some text"), Entry("d2", "", "other text")]
FILES = {
    "named.csv": "text,title,id\nsome text,A title,d1\nother text,,d2\n",
    "named.tsv": "docid\tTitle\tpassage\nd1\tA title\tsome text\nd2\t\tother text\n",
    "bare.tsv": "d1\tA title\tsome text\nd2\t\tother text\n",
    "beir.jsonl": '{"_id": "d1", "title": "A title", "text": "some text", "metadata": {}}\n'
                  '{"_id": "d2", "title": null, "text": "other text", "metadata": {}}\n',
}  # fmt: skip


def read(path: Path, columns: Columns = DOCUMENTS, **settings: str) -> list[Entry]:
    return list(Reader([path], columns, DataSettings(**settings)))


@pytest.mark.parametrize("name", FILES)
def test_documents_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    assert read(tmp_path / name) == EXPECTED
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(FILES[name].encode()))
    assert read(tmp_path / f"{name}.gz") == EXPECTED


def test_documents_are_read_from_parquet(tmp_path: Path) -> None:
    columns = {"id": ["d1", "d2"], "title": ["A title", None], "text": ["some text", "other text"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == EXPECTED


def test_the_lines_of_a_text_file_are_documents_with_their_numbers_as_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two\n")
    (tmp_path / "b.txt").write_text("three\n")
    assert read(tmp_path / "a.txt") == [Entry("1", "", "one"), Entry("3", "", "two")]
    both = Reader(paths_of([str(tmp_path / "*.txt")], DOCUMENTS), DOCUMENTS, DataSettings())
    assert [entry.id for entry in both] == ["a.txt:1", "a.txt:3", "b.txt:1"]


def test_msmarco_and_beir_queries_are_read(tmp_path: Path) -> None:
    expected = [Entry("17", "", "what is it"), Entry("18", "", "who was it")]
    (tmp_path / "bare.tsv").write_text("17\twhat is it\n18\twho was it\n")
    (tmp_path / "beir.jsonl").write_text(
        "".join(json.dumps({"_id": query.id, "text": query.text}) + "\n" for query in expected)
    )
    (tmp_path / "named.csv").write_text("query,qid\nwhat is it,17\nwho was it,18\n")
    for name in ("bare.tsv", "beir.jsonl", "named.csv"):
        assert read(tmp_path / name, QUERIES) == expected


@pytest.mark.parametrize(
    ("columns", "content", "expected"),
    [
        (DOCUMENTS, "question,answer\nhow to pay?,by card\nwhen?,now\n", Entry("2", "how to pay?", "by card")),
        (DOCUMENTS, "ID,abstract\n7,some text\n8,other text\n", Entry("7", "", "some text")),
        (DOCUMENTS, "id,name,description\n7,a,some text\n8,b,other text\n", Entry("7", "", "some text")),
        (DOCUMENTS, "number,words\n7,some text\n8,other text\n", r"\(number, words\)"),
        (DOCUMENTS, "pid,words\na,some text\nb,other text\n", r"\(pid, words\)"),
        (DOCUMENTS, "docno,text\nAP-7,some text\nAP-8,other text\n", Entry("AP-7", "", "some text")),
        (DOCUMENTS, "cord_uid,title,abstract\n7,,some text\n8,,other text\n", Entry("7", "", "some text")),
        (DOCUMENTS, "title,abstract,pmid\na,some text,7\nb,other text,8\n", Entry("7", "a", "some text")),
        (QUERIES, "topic-id,query\n7,some text\n8,other text\n", Entry("7", "", "some text")),
        (JUDGED_QUERIES, "topic,query,narrative\n7,some text,x\n8,other text,y\n", Entry("7", "", "some text")),
        (JUDGED_QUERIES, "query,number\nsome text,7\nother text,8\n", Entry("7", "", "some text")),
        (QUERIES, "question_id,question\n7,some text\n8,other text\n", Entry("7", "", "some text")),
        (QUERIES, "qid,query_text\n7,some text\n8,other text\n", Entry("7", "", "some text")),
    ],
)
def test_a_header_line_is_no_entry(tmp_path: Path, columns: Columns, content: str, expected: Entry | str) -> None:
    (tmp_path / "x.csv").write_text(content)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=f"which column is the text {expected}"):
            read(tmp_path / "x.csv", columns)
    else:
        found = read(tmp_path / "x.csv", columns)
        assert (found[0], len(found)) == (expected, 2)


@pytest.mark.parametrize("columns", [DOCUMENTS, QUERIES], ids=["documents", "queries"])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_numbers_of_lines_are_no_ids_to_judge_by_where_columns_have_names(
    tmp_path: Path, name: str, columns: Columns
) -> None:
    other = "title" if columns is DOCUMENTS else "query"  # two names that are known tell a header line
    rows = [{"text": "some text", other: "more", "key": "a"}, {"text": "other text", other: "more", "key": "b"}]
    (tmp_path / "x.csv").write_text(f"text,{other},key\nsome text,more,a\nother text,more,b\n")
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read(tmp_path / name, columns)) == 2
    judged = dataclasses.replace(columns, judged=True)
    with pytest.raises(UserError, match=rf"judges by ids: which column are they \(text, {other}, key\)\?") as stop:
        read(tmp_path / name, judged)
    assert ("--id_column" if columns is DOCUMENTS else "name it so in the file") in str(stop.value)
    (tmp_path / "x.txt").write_text("some text\nother text\n")
    assert [entry.id for entry in read(tmp_path / "x.txt", judged)] == ["1", "2"]


def test_queries_of_many_columns_without_names_are_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("7\ta\tsome text\n8\tb\tother text\n")
    with pytest.raises(UserError, match=r"the text \(0 to 2\)\?.*; name it so in the file, and the ids id: a first"):
        read(tmp_path / "x.tsv", QUERIES)


@pytest.mark.parametrize(
    ("columns", "content", "remedy"),
    [
        (QUERIES, "who was it\t['a man', 'a b']\nwhat is it\t['c']\nwhy\t['d']\n", "first line.* --data.header yes"),
        (DOCUMENTS, "A title\tsome text\nB\tother text\nC title\tmore\n", "--title_column 0 --data.text 1"),
    ],
    ids=["queries", "documents"],
)
def test_words_are_no_ids_where_columns_have_no_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: Columns, content: str, remedy: str
) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=f"several words, such as .*{remedy}"):
        read(path, columns)
    told = dataclasses.replace(columns, chosen=(None, "0" if columns is DOCUMENTS else None, "1"))
    assert [entry.id for entry in read(path, told)] == ["1", "2", "3"]
    with caplog.at_level(logging.INFO, "jaxlm"):
        path.write_text("d1\tsome text\na place\tother text\n")
        assert read(path, columns)[0] == Entry("d1", "", "some text")
    assert caplog.messages == [f"{path}: no column names: ids are column 0, texts column 1"]


def test_a_text_may_be_a_list_of_sentences(tmp_path: Path) -> None:
    rows = [{"doc_id": 1, "title": "A", "abstract": ["one.", "two."]}, {"doc_id": 2, "title": "B", "abstract": [[1]]}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path / "x.jsonl", bad_rows="skip") == [Entry("1", "A", "one. two.")]


def test_a_title_may_be_absent_from_the_first_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"_id": "1", "text": "alpha"}, {"_id": "2", "title": "Beta", "text": "b", "url": "http://b"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.INFO, "jaxlm"):
        assert read(tmp_path / "x.jsonl") == [Entry("1", "", "alpha"), Entry("2", "Beta", "b")]
    assert "x.jsonl: columns: id _id, title title, text text; not used: url" in caplog.text


def test_files_of_one_name_have_entries_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.txt").write_text(f"text of {folder}\n")
    paths = paths_of([str(tmp_path / "a" / "d.txt"), str(tmp_path / "b" / "d.txt")], DOCUMENTS)
    found = list(Reader(paths, DOCUMENTS, DataSettings()))
    assert [entry.id for entry in found] == [f"{path}:1" for path in paths]
    assert [entry.text for entry in found] == ["text of a", "text of b"]


def test_columns_are_chosen_by_name_or_position(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("x\tnumber\tsaid\ny\t1\tsome text\n")
    chosen = dataclasses.replace(DOCUMENTS, chosen=("number", None, "said"))
    assert read(tmp_path / "x.tsv", chosen, header="yes") == [Entry("1", "", "some text")]
    chosen = dataclasses.replace(DOCUMENTS, chosen=("1", None, "2"))
    assert read(tmp_path / "x.tsv", chosen, header="no")[1] == Entry("1", "", "some text")


@pytest.mark.parametrize("name", DOCUMENT_FILES)
def test_a_broken_file_is_named_with_its_line_or_what_is_broken_left_out(tmp_path: Path, name: str) -> None:
    content, message, left = DOCUMENT_FILES[name]
    path = tmp_path / name.split()[0]
    path.write_bytes(content)
    with pytest.raises(UserError) as stop:
        read(path)
    assert message in str(stop.value)
    assert str(path) in str(stop.value)
    assert "\n" not in str(stop.value)
    reader = Reader([path], DOCUMENTS, DataSettings(bad_rows="skip"))
    if left is None:
        with pytest.raises(UserError):
            list(reader)
    else:
        assert len(list(reader)) == left
        assert sum(reader.skipped.values()) == 1
