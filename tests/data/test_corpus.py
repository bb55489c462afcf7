import gzip
import json
import lzma
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataSettings
from jaxlm.data import corpus
from jaxlm.errors import UserError


def texts(path: Path, **settings: object) -> list[tuple[int, str]]:
    """(document, text) of each piece, cleaned."""
    data = DataSettings(**({"bad_rows": "skip"} | settings))  # type: ignore[arg-type]
    reader = corpus.Reader([str(path)], data)
    pieces = corpus.pieces(str(path), 0, data)
    return [(piece.document, text) for piece in pieces if (text := reader.text(piece)) is not None]


def write(path: Path, content: bytes) -> Path:
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wb") as file:  # type: ignore[operator]
        file.write(content)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz"])
def test_documents_are_what_the_setting_says(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"one\ntwo\n\n \t\nthree\r\n\r\nfour\n\n\n")
    found = [(number, text.split()) for number, text in texts(path)]
    assert found == [(0, ["one", "two"]), (1, ["three"]), (2, ["four"])]
    assert [text.strip() for _, text in texts(path, documents="line")] == ["one", "two", "three", "four"]
    assert [(n, t.split()) for n, t in texts(path, documents="file")] == [(0, ["one", "two", "three", "four"])]


@pytest.mark.parametrize("documents", ["blank_lines", "file", "line"])
@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_pieces_do_not_depend_on_how_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: str, block: int
) -> None:
    content = "\n\n".join("wort " * n + "é漢字" * n + "\n" + "x" * n for n in (1, 40, 3, 200, 0, 5)).encode()
    path = write(tmp_path / "a.txt", content)
    monkeypatch.setattr(corpus, "PIECE_BYTES", 100)
    whole = list(corpus.pieces(str(path), 0, DataSettings(documents=documents)))  # type: ignore[arg-type]
    monkeypatch.setattr(corpus, "_BLOCK", block)
    assert list(corpus.pieces(str(path), 0, DataSettings(documents=documents))) == whole  # type: ignore[arg-type]
    assert b"".join(b"".join(p.content.split()) for p in whole) == b"".join(content.split())
    assert max(len(piece.content.rstrip()) for piece in whole) <= 100
    for piece in whole:
        assert content[piece.offset : piece.offset + len(piece.content)] == piece.content
        piece.content.decode()  # no character is cut in two


def test_dirt_is_counted_and_dealt_with_as_the_module_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfcaf\xe9 one\r\ntwo\x00\x07\r\n\r\n\xff\xfe \xe6\xbc\xa2\r\n")
    data = DataSettings(bad_rows="skip")
    reader = corpus.Reader([str(path)], data)
    found = [reader.text(piece) for piece in corpus.pieces(str(path), 0, data)]
    assert found[0] is not None
    assert found[0].split() == ["caf\ufffd", "one", "two\x00\x07"]
    assert found[1] == "\ufffd\ufffd 漢\r\n"
    assert reader.counts["byte-order marks"] == 1
    assert reader.counts["bad bytes replaced"] == 3
    assert reader.counts["carriage returns"] == 3
    assert reader.counts["control characters"] == 2
    assert reader.counts["documents"] == 2


def test_bad_bytes_stop_with_file_and_line_where_the_setting_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.xz", b"one\n\ntwo\nthr\xffee\n")
    with pytest.raises(UserError, match=r"a\.txt\.xz, line 4: not UTF-8"):
        texts(path, bad_rows="error")


def test_a_file_without_blank_lines_is_said_to_be_one_document(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "books.txt"
    for lines, said in ((1001, True), (1000, False)):
        path.write_text("a line\n" * lines)
        caplog.clear()
        assert len(list(corpus.pieces(str(path), 0, DataSettings()))) == 1
        assert ("no blank line parts its 1001 lines: all are one document" in caplog.text) == said
    path.write_text("a line\n" * 1001 + "\nanother\n")
    assert len(list(corpus.pieces(str(path), 0, DataSettings()))) == 2
    assert not caplog.text


def test_jsonl_gives_a_document_a_line(tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(["one\n\ntwo", "", "three"])]
    path = write(tmp_path / "a.jsonl.gz", "\n".join([*lines, "no json", "[1]", ""]).encode())
    assert texts(path) == [(0, "one\n\ntwo"), (2, "three")]
    data = DataSettings(bad_rows="skip")
    reader = corpus.Reader([str(path)], data)
    for piece in corpus.pieces(str(path), 0, data):
        reader.text(piece)
    assert reader.dropped == {"empty": 1, "no JSON object": 2}
    with pytest.raises(UserError, match=r"line 4: no JSON"):
        texts(path, bad_rows="error")
    with pytest.raises(UserError, match=r"--data.text body: no such column. Columns: id, text"):
        texts(path, text="body")


def test_lists_in_jsonl_are_no_documents_and_an_exact_name_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'[["a"], ["b"]]\n{"text": "x", "TEXT": "y"}\n')
    assert texts(path, bad_rows="skip") == [(1, "x")]


def test_parquet_gives_a_document_a_row(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2, 3], "text": ["a b", None, "c"]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == [(0, "a b"), (2, "c")]


ROWS = [(f"{n}", f"http://a/{n}", f"The {n}. document, of {n} words") for n in range(1, 9)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz"])
@pytest.mark.parametrize(
    ("header", "settings"),
    [
        ("id,url,text", {}),
        ("id,url,text", {"text": "2"}),
        ("id,address,words", {"text": "words"}),
        ("id,address,words", {"text": "2"}),
        ("a,b,c", {"text": "2", "header": "yes"}),
        (None, {"text": "2"}),
        (None, {"text": "2", "header": "no"}),
    ],
)
def test_columns_are_found_by_name_or_position(
    tmp_path: Path, name: str, header: str | None, settings: dict[str, str]
) -> None:
    lines = [f'{number},{address},"{text}"' for number, address, text in ROWS]
    content = "\n".join([header, *lines] if header else lines) + "\n"
    if "tsv" in name:
        content = content.replace(", of", ";").replace(",", "\t").replace(";", ", of").replace('"', "")
    found = texts(write(tmp_path / name, content.encode()), **settings)
    assert [text for _, text in found] == [text for _, _, text in ROWS]


def test_a_row_that_looks_like_the_header_is_a_document(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.csv", b"text\none\ntext\n")) == [(1, "one"), (2, "text")]


def test_rows_without_text_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[dict] = [{"id": 1, "text": "a b"}, {"id": 2}, {"id": 3, "text": None}, {"id": 4, "text": 5}]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    data = DataSettings(bad_rows="skip")
    reader = corpus.Reader([str(path)], data)
    assert [reader.text(piece) for piece in corpus.pieces(str(path), 0, data)] == ["a b", None, None, None]
    assert reader.dropped == {"no text": 2, "empty": 1}
    with pytest.raises(UserError, match=r"line 2: a column is missing \(text\); or leave such rows out"):
        texts(path, bad_rows="error")
    with pytest.raises(UserError, match=r"line 1: text that is no string \(5\)"):
        texts(write(tmp_path / "b.jsonl", b'{"text": 5}'), bad_rows="error")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_the_text_is_in_one_column_of_a_file_which_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    rows = [{"title": "a title alone"}, {"title": "one", "abstract": "two"}, {"abstract": "three", "title": "four"}]
    lines = ["title,abstract", "a title alone,", "one,two", "four,three"]
    if not name.endswith(".csv"):
        lines = [json.dumps(row) for row in rows]
    content = f"[{','.join(lines)}]" if name.endswith(".json") else "\n".join(lines)
    path = write(tmp_path / name, content.encode())
    with caplog.at_level("INFO", "jaxlm"):
        assert [text for _, text in texts(path)] == ["two", "three"]
    assert caplog.messages == [f"{path}: columns: text abstract; not used: title"]
    caplog.clear()
    list(corpus.pieces(str(path), 0, DataSettings(bad_rows="skip"), tell=False))
    assert not caplog.messages


def test_a_list_of_sentences_is_joined(tmp_path: Path) -> None:
    rows = [{"abstract": ["one.", "two."]}, {"abstract": [["one"], ["two"]]}]
    assert texts(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)).encode())) == [(0, "one. two.")]
    pyarrow.parquet.write_table(pyarrow.table({"abstract": [["one.", "two."]]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == [(0, "one. two.")]


def test_bytes_that_begin_no_character_are_cut_somewhere(tmp_path: Path) -> None:
    found = texts(write(tmp_path / "a.txt", b"\x80" * (corpus.PIECE_BYTES + 100)))
    assert sum(len(text) for _, text in found) == corpus.PIECE_BYTES + 100


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data\.train .* is a directory; name its files, as in '.*/\*\.txt'"):
        corpus.expand(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("id,url,text\n1,2,3\n", {"text": "nosuch"}, r"a\.csv: .* nosuch: no such column. Columns: id, url, text"),
        ("id,url,text\n1,2,3\n", {"text": "3"}, "--data.text 3: no such column"),
        ("a b,c d\ne f,g h\n", {}, r"which column is the text\? Columns: 0, 1 - choose with --data\.text"),
    ],
)
def test_a_column_that_is_not_there_is_asked_for(
    tmp_path: Path, content: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        texts(write(tmp_path / "a.csv", content.encode()), **settings)


def test_globs_are_sorted_and_an_empty_one_is_an_error(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.jsonl"):
        write(tmp_path / name, b"x")
    found = corpus.expand(f"{tmp_path}/*.txt, {tmp_path}/c.jsonl,docs:text")
    assert found == [f"{tmp_path}/a.txt", f"{tmp_path}/b.txt", f"{tmp_path}/c.jsonl", "docs:text"]
    with pytest.raises(UserError, match="no file matches"):
        corpus.expand(f"{tmp_path}/*.csv.gz")
    with pytest.raises(UserError, match="should end in one of"):
        corpus.expand(str(write(tmp_path / "picture.png", b"")))


def test_sections_lose_nothing_and_are_cut_at_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "SECTION_CHARACTERS", 50)
    text = "\n".join("some words in a line " * n for n in range(9)) + "x" * 120
    parts = list(corpus.sections(text))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 50
    assert parts[1].startswith(("\n", " "))
