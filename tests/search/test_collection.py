import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataSettings
from jaxlm.errors import UserError
from jaxlm.search.collection import DOCUMENTS, QUERIES, Columns, Entry, Reader, paths_of

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


def test_columns_are_chosen_by_name_or_position(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("x\tnumber\tsaid\ny\t1\tsome text\n")
    chosen = Columns("--documents", DOCUMENTS.id, DOCUMENTS.title, DOCUMENTS.text, ("number", None, "said"))
    assert read(tmp_path / "x.tsv", chosen, header="yes") == [Entry("1", "", "some text")]
    chosen = Columns("--documents", DOCUMENTS.id, DOCUMENTS.title, DOCUMENTS.text, ("1", None, "2"))
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
