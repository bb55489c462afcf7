"""Sentences of words, from every kind of file that holds them."""

import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jaxlm.config import DataSettings
from jaxlm.data.word_files import is_word_directory, read_words
from jaxlm.data.words import WordTable, raw_texts, split_words, word_table
from jaxlm.errors import UserError

WORDS = [["Ada", "Lovelace", "likes", "日本"], ["fine", "."]]
TAGS = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O"]]
INTENTS = ["praise", "praise#other"]
PAIRS = [list(zip(words, tags, strict=True)) for words, tags in zip(WORDS, TAGS, strict=True)]
SPACED = "\n".join("".join(f"{word} NN {tag}\n" for word, tag in pairs) for pairs in PAIRS)
IOB1 = SPACED.replace("B-", "I-")
JSONL = "".join(
    json.dumps({"id": 3, "tokens": words, "ner_tags": tags, "intent": intent}) + "\n"
    for words, tags, intent in zip(WORDS, TAGS, INTENTS, strict=True)
)
SEQ = {
    "seq.in": "".join(" ".join(words) + "\n" for words in WORDS),
    "seq.out": "".join(" ".join(tags) + "\n" for tags in TAGS),
    "label": "".join(f"{intent}\n" for intent in INTENTS),
}


def read(path: Path, *, tags: bool = True, intents: bool = False, split: str = "train", **settings: Any) -> WordTable:
    return read_words(str(path), split, DataSettings(**settings), tags=tags, intents=intents)


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def write_directory(path: Path, **files: str | bytes | None) -> Path:
    path.mkdir()
    for name, content in (SEQ | files).items():
        if content is not None:
            write(path / name, content)
    return path


def assert_offsets_are_exact(table: WordTable) -> None:
    for text, words, starts in zip(table.texts, table.words, table.starts, strict=True):
        assert [text[start : start + len(word)] for word, start in zip(words, starts, strict=True)] == words


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", SPACED),
        ("a.txt", SPACED),
        ("tabs.tsv", SPACED.replace(" ", "\t")),
        ("several_spaces.bio", SPACED.replace(" ", "  ")),
        ("a.gold_conll", "#begin document (a/b); part 000\n" + SPACED + "\n#end document\n"),
        ("genia.iob2", "###MEDLINE:95369245\n\n" + SPACED),
        ("eng.train", "-DOCSTART- -X- O\n\n" + IOB1 + "\n-DOCSTART- -X- O\n\n\n"),
        ("eng.train.xz", IOB1),
        ("crlf.iob", SPACED.replace("\n", "\r\n")),
        ("bom.conll", "\ufeff" + SPACED),
        ("no_last_newline", SPACED.rstrip("\n")),
        ("a.jsonl", JSONL),
    ],
)
def test_every_format_gives_the_same_sentences(tmp_path: Path, name: str, content: str) -> None:
    table = read(write(tmp_path / name, content))
    assert (table.words, table.tags) == (WORDS, TAGS)
    assert table.texts == ["Ada Lovelace likes 日本", "fine ."]
    assert table.remarks == (f"tags in {'IOB1, taken as IOB2' if 'eng' in name else 'IOB2'}",)
    assert_offsets_are_exact(table)


def test_tags_of_one_type_that_has_no_name_get_one(tmp_path: Path) -> None:
    table = read(write(tmp_path / "NCBI.tsv", "a\tO\nbreast\tB\ncancer\tI\n\nfine\tO\n"))
    assert table.tags == [["O", "B-ENTITY", "I-ENTITY"], ["O"]]
    segmented = read(write(tmp_path / "cut.txt", "ab B\ncd E\nef S\n\ngh S\n"))
    assert (segmented.flat, segmented.tags) == (True, [["B", "E", "S"], ["S"]])


PEOPLE = "Ada {B}\nLovelace {I}\nlikes {O}\n東京 {L}\n"


@pytest.mark.parametrize(
    ("b", "i", "o", "place"),
    [
        ("B_PER", "I_PER", "O", "B_LOC"),
        ("B:PER", "I:PER", "O", "B:LOC"),
        ("PER_B", "PER_I", "-", "LOC_B"),  # Naver's Korean NER
        ("PER-B", "PER-I", "O", "LOC-B"),
        ("B-PER", "I-PER", "-", "B-LOC"),
        ("B_PER", "E_PER", "O", "S_LOC"),
    ],
)
@pytest.mark.parametrize("name", ["a.conll", "a.jsonl"])
def test_tags_in_another_form_than_b_and_a_dash_are_of_entities(
    tmp_path: Path, name: str, b: str, i: str, o: str, place: str
) -> None:
    content = PEOPLE.format(B=b, I=i, O=o, L=place)
    if name.endswith("jsonl"):
        words, tags = zip(*(line.split() for line in content.splitlines()), strict=True)
        content = json.dumps({"tokens": words, "tags": tags})
    table = read(write(tmp_path / name, content))
    assert (table.flat, table.tags) == (False, [["B-PER", "I-PER", "O", "B-LOC"]])
    assert "and the like are read as" in table.remarks[0]


def test_types_that_look_like_prefixed_tags_are_types(tmp_path: Path) -> None:
    others = "Ada O\nsaw O\nit O\n"
    cells = read(write(tmp_path / "cells.conll", "lymphocyte B_cell\nhepatitis virus_A\n" + others))
    assert cells.tags == [["B-B_cell", "B-virus_A", "O", "O", "O"]]
    mixed = read(write(tmp_path / "mixed.conll", "a B_PER\nb I_PER\nc thing\n" + others))  # not all have the form
    assert mixed.known_labels == {"O", "B-B_PER", "B-I_PER", "B-thing"}


def test_tags_in_another_form_are_read_as_the_model_and_its_training_data_have_them(tmp_path: Path) -> None:
    path = str(write(tmp_path / "few.conll", "Ada B_PER\nfilm O\nsaw O\n"))  # by itself one type, B_PER

    def tags(*known: str) -> Any:
        return read_words(path, "test", DataSettings(), tags=True, intents=False, known_tags=known).tags

    for known in (("O", "B-PER", "I-PER"), ("O", "B_PER", "I_PER", "B_LOC")):
        assert tags(*known) == [["B-PER", "O", "O"]]
    assert tags("O", "B-B_PER", "B-I_PER") == [["B-B_PER", "O", "O"]]  # a model that was trained on such types


@pytest.mark.parametrize("content", ["Ada B-PER\nfilm -\n", "a -\nfilm -\n"])
def test_a_dash_for_what_is_outside_is_read_beside_known_tags_too(tmp_path: Path, content: str) -> None:
    path = str(write(tmp_path / "dev.conll", content))
    known = ("O", "B-PER", "I-PER", "B-LOC")
    table = read_words(path, "dev", DataSettings(), tags=True, intents=False, known_tags=known)
    assert table.tags == [["O" if line.endswith("-") else "B-PER" for line in content.splitlines()]]


def test_a_last_column_without_an_entity_at_the_head_holds_tags_all_the_same(tmp_path: Path) -> None:
    path = str(write(tmp_path / "sparse.conll", "a DT B-NP O\nfilm NN I-NP O\n"))
    assert read_words(path, "test", DataSettings(), tags=True, intents=False).tags == [["O", "O"]]


FEW_NERD = "Rowan\tperson-actor\nAtkinson\tperson-actor\nParis\tlocation-GPE\nis\tO\nso\tO\n.\tO\n"


def test_types_beside_a_frequent_o_are_of_entities_and_neighbours_are_one(tmp_path: Path) -> None:
    table = read(write(tmp_path / "few.txt", FEW_NERD))
    assert not table.flat
    assert table.tags == [["B-person-actor", "I-person-actor", "B-location-GPE", "O", "O", "O"]]
    assert table.remarks == ("tags are types without B- and I-: neighbours of one type are taken as one entity",)


def test_a_single_type_beside_a_frequent_o_is_of_entities(tmp_path: Path) -> None:
    table = read(write(tmp_path / "one.conll", "breast Disease\ncancer Disease\nis O\nso O\n. O\n\nflu Disease\n! O\n"))
    assert not table.flat
    assert table.tags == [["B-Disease", "I-Disease", "O", "O", "O"], ["B-Disease", "O"]]
    cells = read(write(tmp_path / "cells.conll", "lymphocyte B_cell\nis O\nit O\n"))  # it has the form of one with B
    assert cells.tags == [["B-B_cell", "O", "O"]]


def test_types_of_the_model_are_types_however_few_there_are(tmp_path: Path) -> None:
    path = str(write(tmp_path / "few.txt", "Rowan\tperson-actor\nAtkinson\tperson-actor\nsmiled\tO\n"))
    known = ["O", "B-person-actor", "I-person-actor", "B-location-GPE"]
    table = read_words(path, "test", DataSettings(), tags=True, intents=False, known_tags=known)
    assert table.tags == [["B-person-actor", "I-person-actor", "O"]]
    with pytest.raises(UserError, match="line 1: a tag that is neither O nor a type after B-"):
        read_words(path, "test", DataSettings(), tags=True, intents=False, known_tags=known[:1] + known[3:])
    train = read(write(tmp_path / "train.txt", FEW_NERD))
    assert read_words(
        path, "dev", DataSettings(), tags=True, intents=False, known_tags=train.known_labels
    ).tags == [["B-person-actor", "I-person-actor", "O"]]  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        "fine\tO\n\nAda\tB-PER\n",
        "a\tN\nb\tN\nc\tN\n",
    ],
)
def test_types_beside_prefixes_or_as_rare_an_o_are_stray(more: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: a tag that is neither O nor a type after B-"):
        read(write(tmp_path / "few.txt", FEW_NERD + more))


def test_a_directory_of_seq_in_seq_out_and_label_serves_both_tasks(tmp_path: Path) -> None:
    folder = write_directory(tmp_path / "valid")
    table = read(folder, intents=True)
    assert (table.words, table.tags, table.labels) == (WORDS, TAGS, INTENTS)
    assert read(folder).labels is None
    assert read(tmp_path, intents=True, split="dev").labels == INTENTS  # the folder of the split
    assert is_word_directory(tmp_path)
    assert not is_word_directory(tmp_path / "absent")
    assert read(folder / "seq.in", tags=False).words == WORDS


def test_jsonl_gives_intents_and_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", JSONL.replace("tokens", "w").replace("ner_tags", "t").replace("intent", "i"))
    table = read_words(str(path), "train", DataSettings(words="w", tags="t", label="i"), tags=True, intents=True)
    assert (table.words, table.tags, table.labels) == (WORDS, TAGS, INTENTS)


def test_columns_of_a_conll_file_are_chosen_by_position(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "".join(f"{n} O B-X {word} y\n" for n, word in enumerate(WORDS[0])))
    table = read_words(str(path), "train", DataSettings(words="-2", tags="2"), tags=True, intents=False)
    assert (table.words, table.tags) == ([WORDS[0]], [["B-X"] * 4])


def test_a_parquet_file_of_numbers_is_read_with_the_names_that_datasets_noted_in_it(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    kinds = {"ner_tags": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}}
    rows = {"tokens": WORDS, "ner_tags": [[names.index(tag) for tag in tags] for tags in TAGS]}
    table = pyarrow.table(rows)
    pyarrow.parquet.write_table(table, tmp_path / "plain.parquet")
    noted = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})})
    pyarrow.parquet.write_table(noted, tmp_path / "noted.parquet")
    found = read(tmp_path / "noted.parquet")
    assert (found.words, found.tags) == (WORDS, TAGS)
    with pytest.raises(UserError, match=r"plain\.parquet, line 1: tags that are numbers without names"):
        read(tmp_path / "plain.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("label.json", {"O": 0, "B-PER": 1, "I-PER": 2, "B-LOC": 3}),
        ("id2label.json", {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC"}),
        ("label.json", ["O", "B-PER", "I-PER", "B-LOC"]),
    ],
)
def test_numbers_have_the_names_that_lie_beside_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: Any
) -> None:
    numbers = [[1, 2, 0, 3], [0, 0]]
    rows = [{"tokens": words, "tags": tags} for words, tags in zip(WORDS, numbers, strict=True)]
    path = write(tmp_path / "train.json", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=r"numbers without names .*; write names, or put them beside the file: label\.js"
    ):
        read(path)
    names = write(tmp_path / name, json.dumps(content))
    with caplog.at_level("INFO", "jaxlm"):
        table = read(path)
    assert (table.words, table.tags) == (WORDS, TAGS)
    assert f"{path}: names of its tags from {names}" in caplog.text
    for other in ({"O": "x"}, [], 3, {"O": 0, "x": None}):
        write(names, json.dumps(other))
        with pytest.raises(UserError, match=f"{name}: the names of tags with their numbers are meant, as in "):
            read(path)
    write(names, '["O"]')
    with pytest.raises(UserError, match="line 1: tags that are numbers without names"):
        read(path)


def test_entities_by_first_and_last_character_are_of_characters(tmp_path: Path) -> None:
    text = "叶老桂 见了叶老桂在 UBS"
    label = {"name": {"叶老桂": [[0, 2], [6, 8]]}, "company": {"UBS": [[11, 13]]}}
    rows = [{"text": text, "label": label}, {"text": "见了", "label": {}}]  # as CLUENER has them
    path = write(tmp_path / "train.json", "".join(json.dumps(row) + "\n" for row in rows))
    table = read(path)
    assert table.texts == [text, "见了"]
    assert table.words[0] == [*text.replace(" ", "")]
    name = ["B-name", "I-name", "I-name"]
    assert table.tags == [[*name, "O", "O", *name, "O", "B-company", "I-company", "I-company"], ["O", "O"]]
    assert_offsets_are_exact(table)
    assert read(path, tags=False).starts == table.starts
    for wrong, problem in (
        ({"name": {"老桂": [[0, 1]]}}, r"an entity that is not at its place \(name '老桂' at \[0, 1\]\)"),
        (label | {"place": {"桂": [[2, 2]]}}, r"an entity that overlaps another \(place '桂' at \[2, 2\]\)"),
        ({"name": {"叶老桂": 0}}, "an entity without its first and last character"),
    ):
        write(path, json.dumps([rows[0], {"text": text, "label": wrong}]))
        with pytest.raises(UserError, match=f"item 2: {problem}"):
            read(path)
        assert len(read(path, bad_rows="skip")) == 1


GOOD_ROW = '{"tokens": ["a"], "tags": ["O"]}\n'
BROKEN = {
    # CoNLL columns: the second sentence is broken
    "utf8.conll": (b"a O\n\n\xff B-X\n", "line 3", "not UTF-8"),
    "few.conll": ("a x O\n\nb O\n", "line 3", "wrong number of columns (2 instead of 3)"),
    "many.conll": ("a O\n\nb x O\n", "line 3", "wrong number of columns (3 instead of 2)"),
    "cut.conll": ("a O\n\nb O\nc\n", "line 4", "wrong number of columns (1 instead of 2)"),
    "pos.conll": ("a O\n\nb NN\n", "line 3", "('NN')"),
    "typeless.conll": ("a O\n\nb B-\n", "line 3", "('B-')"),
    "small.conll": ("a O\n\nb O\nc o\n", "line 4", "('o')"),
    "prefix.conll": ("a O\n\nb X-PER\n", "line 3", "('X-PER')"),
    "void.conll": ("a\tO\n\nb\t\n", "line 3", "an empty column"),
    "trailing.conll": ("a\tO\n\nb\tO\t\n", "line 3", "an empty column"),
    # rows
    "json.jsonl": (GOOD_ROW + '{"tokens": [\n', "line 2", "no JSON"),
    "array.jsonl": (GOOD_ROW + "[1]\n", "line 2", "no JSON object"),
    "utf8.jsonl": (GOOD_ROW.encode() + b'{"tokens": ["\xff"], "tags": ["O"]}\n', "line 2", "not UTF-8"),
    "missing.jsonl": (GOOD_ROW + '{"tokens": ["a"]}\n', "line 2", "a column is missing (tags)"),
    "string.jsonl": (GOOD_ROW + '{"tokens": "a", "tags": ["O"]}\n', "line 2", "no list of strings"),
    "numbers.jsonl": (GOOD_ROW + '{"tokens": [3], "tags": ["O"]}\n', "line 2", "no list of strings"),
    "void.jsonl": (GOOD_ROW + '{"tokens": ["a"], "tags": [null]}\n', "line 2", "a tag that is no name (null)"),
    "null.jsonl": (GOOD_ROW + '{"tokens": ["a"], "tags": null}\n', "line 2", "tags that are no list"),
    "uneven.jsonl": (GOOD_ROW + '{"tokens": ["a", "b"], "tags": ["O"]}\n', "line 2", "(2 words, 1 tags)"),
    "unnamed.jsonl": (GOOD_ROW + '{"tokens": ["a"], "tags": [3]}\n', "line 2", "numbers without names"),
    "foreign.jsonl": (GOOD_ROW + '{"tokens": ["a", "b"], "tags": ["B-X", "NN"]}\n', "line 2", "('NN'), of word 2"),
    "no_words.jsonl": (GOOD_ROW + '{"tokens": [], "tags": []}\n', "line 2", "a sentence without words"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_sentence_is_an_error_with_file_and_line_or_skipped_and_counted(tmp_path: Path, name: str) -> None:
    content, line, problem = BROKEN[name]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        read(path)
    for part in (str(path), line, problem):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    table = read(path, bad_rows="skip")
    assert len(table) == 1
    assert sum(table.skipped.values()) == 1


BROKEN_DIRECTORIES = {
    "tags": ({"seq.out": "B-PER O O B-LOC\nO\n"}, "line 2", "2 words in seq.in, 1 tags in seq.out"),
    "words": ({"seq.in": "Ada Lovelace likes\nfine .\n"}, "line 1", "3 words in seq.in, 4 tags in seq.out"),
    "foreign": ({"seq.out": "B-PER O O B-LOC\nO NN\n"}, "line 2", "('NN'), of word 2 in seq.out"),
    "no_sentence": ({"seq.in": "\nfine .\n"}, "line 1", "0 words in seq.in"),
    "no_tags": ({"seq.out": "\nO O\n"}, "line 1", "0 tags in seq.out"),
    "no_intent": ({"label": " \npraise\n"}, "line 1", "no intent"),
    "utf8_words": ({"seq.in": b"a b c d\nfine \xff\n"}, "line 2", "not UTF-8 in seq.in"),
    "utf8_tags": ({"seq.out": b"O O O O\nO \xff\n"}, "line 2", "not UTF-8 in seq.out"),
    "utf8_intent": ({"label": b"a\n\xff\n"}, "line 2", "not UTF-8 in label"),
    "prefix": ({"seq.out": "Q-PER O O O\nO O\n"}, "line 1", "('Q-PER'), of word 1"),
}


@pytest.mark.parametrize("name", BROKEN_DIRECTORIES)
def test_a_broken_line_of_a_directory_is_named_or_skipped_and_counted(tmp_path: Path, name: str) -> None:
    files, line, problem = BROKEN_DIRECTORIES[name]
    folder = write_directory(tmp_path / "train", **files)
    with pytest.raises(UserError) as error:
        read(folder, intents=True)
    for part in (str(folder), line, problem):
        assert part in str(error.value)
    table = read(folder, intents=True, bad_rows="skip")
    assert len(table) == 1
    assert sum(table.skipped.values()) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"seq.out": SEQ["seq.out"] + "O\n"},
            r"line 3: seq\.in, label ended before seq\.out; their lines have to agree",
        ),
        ({"label": "praise\n"}, r"line 2: label ended before seq\.in, seq\.out"),
        ({"seq.in": None}, r"directory without seq\.in \(it holds: label, seq\.out\)"),
        ({"label": None}, "directory without label"),
        ({"seq.in": "", "seq.out": "", "label": ""}, "no sentences"),
    ],
)
def test_a_directory_whose_files_do_not_agree_is_named(tmp_path: Path, files: dict, message: str) -> None:
    folder = write_directory(tmp_path / "train", **files)
    for bad_rows in ("error", "skip"):
        with pytest.raises(UserError, match=message) as error:
            read(folder, intents=True, bad_rows=bad_rows)
        assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("absent.conll", None, {}, "no such file"),
        ("empty.conll", "", {}, "no sentences"),
        ("only.conll", "-DOCSTART- O\n\n", {}, "no sentences"),
        ("one.conll", "a\nb\n", {}, "one.conll: its first row has one column"),
        ("mixed.conll", "a S-X\n\nb U-X\n", {}, r"two schemes: E- or S- \(IOBES; line 1\) and .* \(BILOU; line 3\)"),
        ("range.conll", "a O\n", {"tags": "5"}, "--data.tags 5: there are 2 columns"),
        ("named.conll", "a O\n", {"words": "token"}, "--data.words token: a CoNLL file's columns have numbers"),
        ("columns.jsonl", '{"a": ["b"], "c": ["O"]}\n', {}, "which column holds the words.*Columns: a, c"),
        ("asked.jsonl", GOOD_ROW, {"tags": "pos"}, r"which column holds the tags \(--data\.tags pos\)"),
        ("damaged.xz", b"\xfd7zXZ\x00nonsense", {}, "damaged"),
        ("a.parquet", "nonsense", {}, "no parquet file"),
        ("scheme:x", None, {}, "tfds:NAME and hf:NAME are"),
    ],
)
def test_an_unusable_file_is_named(
    tmp_path: Path, name: str, content: str | bytes | None, settings: dict[str, str], message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message) as error:
        read_words(str(path), "train", DataSettings(**settings), tags=True, intents=False)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pos.conll", "Ada PROPN\nlikes VERB\n\nfine ADJ\n. PUNCT\n"),
        (
            "pos.jsonl",
            '{"tokens": ["Ada", "likes"], "tags": ["PROPN", "VERB"]}\n'
            '{"tokens": ["fine", "."], "tags": ["ADJ", "PUNCT"]}\n',
        ),
    ],
)
def test_tags_without_prefixes_are_taken_as_they_are(tmp_path: Path, name: str, content: str) -> None:
    table = read(write(tmp_path / name, content))
    assert table.flat
    assert table.tags == [["PROPN", "VERB"], ["ADJ", "PUNCT"]]
    assert table.remarks == ("4 tags without B- and I-, taken as they are",)
    assert not table.unlabelled().flat
    # One tag of an entity, and the others are strays.
    for other in ("O", "B-X"):
        with pytest.raises(UserError, match=r"line 1: a tag that is neither O nor a type .* \('PROPN'\)"):
            read(write(tmp_path / name, content.replace("PUNCT", other)))


def test_o_may_be_one_of_many_tags_of_words(tmp_path: Path) -> None:
    tweets = "I\tO\nlike\tV\nit\tO\n!\t,\nlove\tV\nsaw\tV\n"  # Oct27, where O are pronouns
    table = read(write(tmp_path / "oct27.train", tweets))
    assert (table.flat, table.tags) == (True, [["O", "V", "O", ",", "V", "V"]])
    path = str(write(tmp_path / "oct27.dev", "I\tO\nlike\tV\nit\tO\n"))
    dev = read_words(path, "dev", DataSettings(), tags=True, intents=False, known_tags=table.known_labels)
    assert (dev.flat, dev.tags) == (True, [["O", "V", "O"]])
    with pytest.raises(UserError, match=r"line 2: a tag that is neither O nor a type after B-.* \('V'\)"):
        read_words(str(tmp_path / "oct27.train"), "dev", DataSettings(), tags=True, intents=False, known_tags=["B-PER"])


def test_a_sentence_a_line_is_no_word_with_a_tag(tmp_path: Path) -> None:
    atis = "BOS show flights EOS\tO O O atis_flight\nBOS to boston EOS\tO O B-city atis_flight\n"
    with pytest.raises(UserError, match=r"line 1: a line with the words and tags of a whole sentence \('O O O atis_f"):
        read(write(tmp_path / "atis.train.w-intent.iob", atis))


def test_a_conll_file_has_no_intents(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no place for intents"):
        read(write(tmp_path / "a.conll", SPACED), intents=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada  likes\tparis, (a lot).", ["Ada", "likes", "paris", ",", "(", "a", "lot", ")", "."]),
        (
            "Jean-Claude, U.S. 3.5% -x- a.-b",
            ["Jean-Claude", ",", "U.S", ".", "3.5", "%", "-", "x", "-", "a", ".", "-", "b"],
        ),
        ("我在北京 eat东", ["我", "在", "北", "京", "eat", "东"]),
        ("e\u0301te\u0301 ne\u0301-là", ["e\u0301te\u0301", "ne\u0301-là"]),
        ("हिन्दी \U0001f44d\U0001f3fd!\ufe0f", ["हिन्दी", "\U0001f44d", "\U0001f3fd", "!\ufe0f"]),
        ("\u0301a\u200b b\xa0c\u3000d\x00e\n", ["\u0301a\u200b", "b", "c", "d", "e"]),
    ],
)
def test_raw_text_is_parted_with_exact_offsets(text: str, words: list[str]) -> None:
    found = split_words(text)
    assert [word for word, _ in found] == words
    assert all(text[start : start + len(word)] == word for word, start in found)


def test_raw_texts_keep_their_offsets_and_bad_ones_are_named(tmp_path: Path) -> None:
    table = word_table("--text", raw_texts(["  two  words "]), "error", tags=False, intents=False)
    assert (table.texts, table.words, table.starts) == (["  two  words "], [["two", "words"]], [[2, 7]])
    for given, message in (([b"a", b" ", b""], "line 2: a sentence without words"), ([b"\xff"], "line 1: not UTF-8")):
        with pytest.raises(UserError, match=message):
            word_table("stdin", raw_texts(given), "error", tags=False, intents=False)
    path = write(tmp_path / "a.txt", " two  words\nx\n")
    assert read(path, tags=False).starts == [[1, 6], [0]]
    path = write(tmp_path / "a.csv", 'id,text\n1," b, c"\n2,d\n3,e,f\n')
    table = read(path, tags=False, bad_rows="skip")
    assert (table.texts, table.starts) == ([" b, c", "d"], [[1, 2, 4], [0]])
    assert table.skipped == {"wrong number of columns": 1}
    assert read(write(tmp_path / "b.csv", "1,text of it\n2,d\n"), tags=False, text="1").texts == ["text of it", "d"]
    path = write(tmp_path / "a.jsonl", '{"id": 1, "text": " b, c"}\n{"id": 2, "text": 3}\n')
    table = read(path, tags=False, bad_rows="skip")
    assert (table.words, table.starts, table.skipped) == ([["b", ",", "c"]], [[1, 2, 4]], {"text that is no string": 1})


def test_words_may_be_numbered_from_0(tmp_path: Path) -> None:
    lines = (f"{number}\t{word}\t{tag}\n" for pairs in PAIRS for number, (word, tag) in enumerate([*pairs, ("x", "O")]))
    numbered = "".join("\n" * line.startswith("0") + line for line in lines)  # as WikiNEuRal has them
    table = read(write(tmp_path / "wiki.conllu", numbered))
    assert (table.words, table.tags) == ([[*words, "x"] for words in WORDS], [[*tags, "O"] for tags in TAGS])


@pytest.mark.parametrize("column", ["(GPE) *", "* (DATE*", "* *)", "- (12)"])
def test_spans_in_brackets_are_no_tags(tmp_path: Path, column: str) -> None:
    rows = "".join(f"word {cell}\n" for cell in column.split())
    with pytest.raises(UserError, match="marks spans by brackets, as OntoNotes does"):
        read(write(tmp_path / "onto.conll", rows))


def test_untyped_tags_of_iobes_are_of_one_type(tmp_path: Path) -> None:
    table = read(write(tmp_path / "iobes.txt", "O O\na B\nb E\nO O\nc S\nO O\nO O\n"))
    assert table.tags == [["O", "B-ENTITY", "I-ENTITY", "O", "B-ENTITY", "O", "O"]]


def test_a_single_column_with_a_name_is_no_text(tmp_path: Path) -> None:
    for name, texts in (("one.csv", ["Ada saw", "Bob"]), ("one.txt", ["text", "Ada saw", "Bob"])):
        assert read(write(tmp_path / name, "text\nAda saw\nBob\n"), tags=False).texts == texts
    rows = '{"Tokens": ["Ada"], "NER_tags": ["B-PER"]}\n'
    assert read(write(tmp_path / "a.jsonl", rows)).tags == [["B-PER"]]
