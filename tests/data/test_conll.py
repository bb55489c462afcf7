"""What the columns of CoNLL files hold, whether their tags are wanted or not."""

import logging
from pathlib import Path
from typing import Any

import pytest

from jaxlm.config import DataSettings
from jaxlm.data.word_files import read_words
from jaxlm.data.words import WordTable
from jaxlm.errors import NoSuchColumn, UserError

NER = {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}


def read(path: Path, content: str, known: Any = (), *, tags: bool = True, **settings: str) -> WordTable:
    path.write_text(content)
    return read_words(str(path), "test", DataSettings(**settings), tags=tags, intents=False, known_tags=known)


def predict(path: Path, content: str, known: Any = NER, **settings: str) -> list[list[str]]:
    return read(path, content, known, tags=False, **settings).words


@pytest.mark.parametrize("tags", [True, False])
def test_a_tab_in_a_comment_makes_no_comment_of_the_word_that_looks_like_one(tmp_path: Path, tags: bool) -> None:
    content = "# id 1\tdomain=en\nc _ _ B-PROD\n# _ _ I-PROD\n\n# id 2\tdomain=en\n# _ _ B-PROD\n"  # MultiCoNER
    assert read(tmp_path / "en.conll", content, tags=tags).words == [["c", "#"], ["#"]]


IDS = "{0}\t{1}\t{2}\n0\tAda\tB-PER\n0\tran\tO\n1\tto\tO\n1\tOslo\tB-LOC\n"


@pytest.mark.parametrize("names", ["sentence_id words labels", "id token label"])
def test_columns_are_chosen_by_their_names_and_one_of_ids_parts_sentences(tmp_path: Path, names: str) -> None:
    content = IDS.format(*names.split())
    table = read(tmp_path / "a.tsv", content)
    assert (table.words, table.tags) == ([["Ada", "ran"], ["to", "Oslo"]], [["B-PER", "O"], ["O", "B-LOC"]])
    assert predict(tmp_path / "a.tsv", content) == table.words
    _, words, tags = names.split()
    assert read(tmp_path / "a.tsv", content, words=words, tags=tags).words == table.words
    with pytest.raises(NoSuchColumn, match=f"--data.words text: no such column. Columns: {', '.join(names.split())}"):
        read(tmp_path / "a.tsv", content, words="text")
    blank = content.replace("1\tto", "\n0\tto")
    assert read(tmp_path / "a.tsv", blank).words == table.words
    with pytest.raises(UserError, match=r"where does a sentence end\? .* column 0 .*put a blank line after each"):
        read(tmp_path / "a.tsv", content.replace("0\tran", "7\tran").replace("1\tOslo", "8\tOslo"))


def test_names_that_are_asked_for_make_a_header_and_named_tags_are_preferred(tmp_path: Path) -> None:
    own = "mot\tclasse\nAda\tPROPN\ncourt\tVERB\n"
    assert read(tmp_path / "a.conll", own, words="mot", tags="classe").words == [["Ada", "court"]]
    both = "token\tner\tchunk\nAda\tB-PER\tB-NP\nran\tO\tB-VP\n"
    assert read(tmp_path / "a.conll", both).tags == [["B-PER", "O"]]
    flat = "token\ttag\tlemma\nAda\tPROPN\tada\nran\tVERB\trun\n"
    assert read(tmp_path / "a.conll", flat).tags == [["PROPN", "VERB"]]


TYPES = {"O", "B-person-actor", "I-person-actor"}
SINGLE = {"O", "B-ENTITY", "I-ENTITY"}


@pytest.mark.parametrize(
    ("content", "known"),
    [
        ("Ada\tperson-actor\nran\tO\nto\tO\nOslo\tlocation-GPE\n", TYPES),
        ("Ada NOUN\nran VERB\nto ADP\nOslo PROPN\n", {"NOUN", "VERB", "ADP"}),
        ("Ada\tB\nran\tO\nto\tO\nOslo\tI\n", SINGLE),
        ("Ada B-PER\nran O\nto O\nOslo B-LOC\n", NER),
        ("B-PER\tAda\nO\tran\nO\tto\nB-LOC\tOslo\n", NER),
        ("person-actor\tAda\nO\tran\nO\tto\nO\tOslo\n", TYPES),
    ],
)
@pytest.mark.parametrize("name", ["one.txt", "one.tsv"])
def test_words_with_tags_are_no_texts_and_tags_no_words(tmp_path: Path, content: str, known: Any, name: str) -> None:
    assert predict(tmp_path / name, content, known) == [["Ada", "ran", "to", "Oslo"]]


def test_one_odd_row_is_an_error_of_its_own(tmp_path: Path) -> None:
    content = "Ada B-PER\nran O\n\nodd one out\n\nOslo B-LOC\n"
    with pytest.raises(UserError, match=r"line 4: wrong number of columns \(3 instead of 2\)"):
        predict(tmp_path / "a.txt", content)
    assert predict(tmp_path / "a.txt", content, bad_rows="skip") == [["Ada", "ran"], ["Oslo"]]


def test_texts_stay_texts(tmp_path: Path) -> None:
    texts = "good city\nbad city\nO city\nsee Oslo now\n"
    known = {"O", "B-city", "I-city"}
    assert len(predict(tmp_path / "a.txt", texts, known)) == 4
    pairs = "a good film\tthe first\n\nanother film\tthe next\nmore of it\tthe last\n"
    assert len(predict(tmp_path / "a.txt", pairs, known, bad_rows="skip")) == 3


def test_a_blank_line_of_a_txt_file_may_part_words(tmp_path: Path) -> None:
    content = "Ada\nran\n\nto\nOslo\n"
    with pytest.raises(UserError, match=r"line 3: a sentence without words, .* a word a line, name it \.conll; "):
        predict(tmp_path / "a.txt", content)
    assert predict(tmp_path / "a.txt.conll", content) == [["Ada", "ran"], ["to", "Oslo"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("B-PER\t0\t4\tAda\nO\t5\t8\tran\n", r"column 0 holds tags.* 0 \(B-PER\), 1 \(0\), 2 \(4\), 3 \(Ada\)"),
        ("bc/a 0 0 In B-PER\nbc/a 0 1 it O\n\nbc/b 0 0 a O\n", r"column 0 has one value .* 3 \(In\), 4 \(B-PER\)"),
    ],
)
def test_a_first_column_of_something_else_is_not_taken_for_words(tmp_path: Path, content: str, message: str) -> None:
    for tags in (True, False):
        with pytest.raises(UserError, match=message + r" - choose with --data\.words NUMBER"):
            read(tmp_path / "a.conll", content, NER, tags=tags)


def test_a_position_of_another_file_is_not_that_of_parts_of_speech(tmp_path: Path) -> None:
    testb = "EU NNP B-NP B-ORG\nCALLS VBZ B-VP O\nGermany NNP B-NP B-LOC\n"
    with pytest.raises(NoSuchColumn, match=r"--data.words 1: that column holds parts of speech.* 0 \(EU\), 1 \(NNP\)"):
        predict(tmp_path / "eng.testb", testb, words="1")
    with pytest.raises(NoSuchColumn, match=r"--data.words 1: that column has one value throughout each sentence"):
        predict(tmp_path / "a.conll", "bc/a 0 In\nbc/a 0 it\n", words="1")
    few = "Ada NOUN\nran VERB\n\nto ADP\n"
    for name, known in (("pos.txt", {"NOUN", "VERB", "ADP"}), ("pos.conll", NER), ("pos.tsv", {"NOUN", "VERB"})):
        with pytest.raises(
            NoSuchColumn, match=r"--data.words 1: that column holds (tags|parts of speech), as it seems"
        ):
            predict(tmp_path / name, few, known, words="1")
    assert predict(tmp_path / "atis.conll", "flight SHOW O\nof ME O\n", words="1") == [["SHOW", "ME"]]


def test_predict_says_which_of_several_columns_it_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "jaxlm"):
        predict(tmp_path / "eng.testb", "EU NNP B-ORG\ncalls VBZ O\n")
    assert "words in column 0, of 3 from 0" in caplog.text


def test_a_language_ahead_of_each_word_is_no_part_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "en:Ada\tB-PER\nen::\tO\n\nen:ran\tO\n"  # PAN-X
    with caplog.at_level(logging.INFO, "jaxlm"):
        assert read(tmp_path / "dev", content).words == [["Ada", ":"], ["ran"]]
    assert "en: ahead of each word is left out" in caplog.text
    assert predict(tmp_path / "dev", content) == [["Ada", ":"], ["ran"]]
    for others in ("en:Ada\tB-PER\nran\tO\n", "http://a.org\tB-PER\nhttp://b.org\tO\n"):
        assert read(tmp_path / "dev", others).words == [[line.split("\t")[0] for line in others.splitlines()]]


KLUE = "## klue-1\t<경찰:OG> 또\n경\tB-OG\n찰\tI-OG\n \tO\n또\tO\n\n## klue-2\t##\n##\tB-OG\n \tI-OG\n가\tI-OG\n"


@pytest.mark.parametrize("tags", [True, False])
def test_a_word_may_be_a_space_and_a_sentence_stand_ahead_of_its_words(tmp_path: Path, tags: bool) -> None:
    table = read(tmp_path / "klue.tsv", KLUE, {"O", "B-OG", "I-OG"}, tags=tags)
    assert table.words == [["경", "찰", " ", "또"], ["##", " ", "가"]]
    if tags:
        assert table.tags == [["B-OG", "I-OG", "O", "O"], ["B-OG", "I-OG", "I-OG"]]


@pytest.mark.parametrize(
    "texts",
    [
        ["Germany - France was a draw", "Peter went to Paris"],
        ["Germany - France was a draw"],
        ["Germany - France", "Italy - Spain"],
        ["Blood group O is rare"],
    ],
)
def test_a_dash_among_raw_texts_is_no_tag(tmp_path: Path, texts: list[str]) -> None:
    for name in ("a.txt", "a.csv"):
        assert predict(tmp_path / name, "\n".join(texts)) == [text.split() for text in texts]


def _with_tags_at(place: str, path: Path, content: str) -> list[list[str]]:
    path.write_text(content)
    return read_words(str(path), "test", DataSettings(tags=place), tags=False, intents=False, known_tags=NER).words


def test_where_tags_came_first_they_need_not_again(tmp_path: Path) -> None:
    """The position of a model's training, which `predict` then does without."""
    content = "EU B-PER\nrejects O\nGerman B-LOC\n"
    with pytest.raises(NoSuchColumn, match=r"--data\.tags 0: the other column holds tags, as it seems"):
        _with_tags_at("0", tmp_path / "a.conll", content)
    assert _with_tags_at("0", tmp_path / "a.conll", "B-PER EU\nO rejects\n") == [["EU", "rejects"]]
    names = "Peter Blackburn\nAda Lovelace\n\nGrace Hopper\nAlan Turing\n"
    with pytest.raises(UserError, match="every line has 2 columns and blank lines part them"):
        _with_tags_at("-1", tmp_path / "a.txt", names)
