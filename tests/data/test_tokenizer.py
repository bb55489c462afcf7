import itertools
import json
import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizer

from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError

TEXTS = [
    "The naïve café, isn't it?",
    "  two   spaces\tand a tab ",
    "数据库 is 中文",
    "unseenword zzz",
    "ÅNGSTRÖM e\u0301",
]
WORDS = [
    "the", "naive", "naïve", "café", "cafe", ",", "'", "?", "isn", "t", "it", "two", "spaces", "and", "a", "tab",
    "数", "据", "is", "中", "文", "un", "##seen", "##word", "The",
]  # fmt: skip


@pytest.fixture
def vocab_directory(tmp_path: Path) -> Path:
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab))
    return tmp_path


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_vocabulary_file_gives_the_tokens_of_transformers(vocab_directory: Path, lowercase: bool) -> None:
    config = {"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"}
    (vocab_directory / "tokenizer_config.json").write_text(json.dumps(config))
    reference = BertTokenizer(str(vocab_directory / "vocab.txt"), do_lower_case=lowercase)
    encoded = TextTokenizer.load(vocab_directory).encode(TEXTS)
    ours = [encoded.input_ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    assert ours == reference(TEXTS)["input_ids"]
    assert any(len(set(ids)) > 4 for ids in ours)


def test_what_is_saved_opens_in_autotokenizer_with_the_same_tokens(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.train([*TEXTS * 3, "pairs of words"], 200, lowercase=True)
    tokenizer.save(tmp_path, max_length=9)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer.encode(TEXTS, TEXTS[::-1], max_length=9)
    expected = reference(TEXTS, TEXTS[::-1], truncation=True)
    assert encoded.input_ids.tolist() == [*itertools.chain(*expected["input_ids"])]
    assert encoded.token_type_ids.tolist() == [*itertools.chain(*expected["token_type_ids"])]
    assert TextTokenizer.load(tmp_path).max_length == 9


def test_padding_and_truncation_of_a_tokenizer_file_do_not_leak(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.train(TEXTS, 200, lowercase=True)
    tokenizer.save(tmp_path, max_length=64)
    plain = tokenizer.encode(TEXTS)
    trapped = json.loads((tmp_path / "tokenizer.json").read_text())
    trapped["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    trapped["padding"] = {"strategy": {"Fixed": 32}, "direction": "Right", "pad_id": 0, "pad_type_id": 0,
                          "pad_token": "[PAD]", "pad_to_multiple_of": None}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(trapped))
    again = TextTokenizer.load(tmp_path).encode(TEXTS)
    assert again.input_ids.tolist() == plain.input_ids.tolist()


def test_texts_that_are_cut_are_counted() -> None:
    tokenizer = TextTokenizer.train(TEXTS, 200, lowercase=True)
    lengths = [len(tokenizer.tokenize_text(text)) + 2 for text in TEXTS]
    limit = sorted(lengths)[-2]
    encoded = tokenizer.encode(TEXTS, max_length=limit)
    assert encoded.truncated == sum(length > limit for length in lengths) >= 1
    assert max(encoded.offsets[1:] - encoded.offsets[:-1]) == limit


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tokenizer"),
        ({"tokenizer.json": "{"}, "damaged"),
        ({"vocab.txt": "[PAD]\n[UNK]\n[SEP]\nword\n"}, r"\[CLS\]"),
        ({"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n"}, "no mask token"),
        ({"vocab.txt": "a\n", "tokenizer_config.json": "nonsense"}, "cannot be read"),
        ({"vocab.txt": POINTER}, "vocab.txt is a pointer of Git LFS"),
        ({"tokenizer.json": POINTER}, "tokenizer.json is a pointer of Git LFS"),
        ({"vocab.txt": "a\n", "tokenizer_config.json": POINTER}, "tokenizer_config.json is a pointer of Git LFS"),
    ],
)
def test_a_directory_without_a_usable_tokenizer_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        TextTokenizer.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def as_transformers(directory: Path, exported: Path, texts: list[str] = TEXTS) -> None:
    """A directory's tokens are those of transformers, before and after it went through here."""
    loaded = TextTokenizer.load(directory)
    loaded.save(exported, 32)
    encoded = loaded.encode(texts)
    ours = [encoded.input_ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    pairs = loaded.encode(texts, texts[::-1], max_length=512)
    for reference in (AutoTokenizer.from_pretrained(directory), AutoTokenizer.from_pretrained(exported)):
        assert reference(texts)["input_ids"] == ours
        assert [*itertools.chain(*reference(texts, texts[::-1])["input_ids"])] == pairs.input_ids.tolist()
    # transformers' own class for a tokenizer.json alone tells no pairs apart, unless it is told to.
    assert [*itertools.chain(*reference(texts, texts[::-1])["token_type_ids"])] == pairs.token_type_ids.tolist()


@pytest.mark.parametrize(
    "kind", [None, "a BERT", "PreTrainedTokenizerFast", "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer"]
)
@pytest.mark.parametrize("stated", [{}, {"do_lower_case": True}, {"do_lower_case": False, "strip_accents": True}])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_tokenizer_file_and_its_config_that_disagree(
    tmp_path: Path, kind: str | None, stated: dict[str, bool], lowercase: bool
) -> None:
    TextTokenizer.train(TEXTS + WORDS, 60, lowercase, min_frequency=1).save(tmp_path, 32)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    kept = {name: value for name, value in config.items() if name.endswith("_token")}
    told = {"tokenizer_class": kind}
    if kind in (None, "a BERT"):  # what the model is decides, where that is known
        told = {}
        if kind:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kept | stated | told))
    as_transformers(tmp_path, tmp_path / "exported")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_setting_that_is_null_has_its_default(vocab_directory: Path, file: str) -> None:
    names = (
        "do_lower_case",
        "strip_accents",
        "tokenize_chinese_chars",
        "unk_token",
        "mask_token",
        "added_tokens_decoder",
    )
    expected = TextTokenizer.load(vocab_directory).encode(TEXTS).input_ids.tolist()
    (vocab_directory / file).write_text(json.dumps(dict.fromkeys(names)))
    assert TextTokenizer.load(vocab_directory).encode(TEXTS).input_ids.tolist() == expected


def test_tokens_that_were_added_beside_a_vocabulary_file(vocab_directory: Path) -> None:
    (vocab_directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    added = {"isn't": 5 + len(WORDS), "[ENT]": 6 + len(WORDS)}
    (vocab_directory / "added_tokens.json").write_text(json.dumps(added))
    as_transformers(vocab_directory, vocab_directory / "exported", [*TEXTS, "the [ENT] and the cafe"])
    assert added["[ENT]"] in TextTokenizer.load(vocab_directory).encode(["a [ENT]"]).input_ids
    (vocab_directory / "added_tokens.json").write_text('{"[ENT]": 3}')
    with pytest.raises(UserError, match=r"give \[ENT\] the id 3; after it comes 30"):
        TextTokenizer.load(vocab_directory)


def test_tokens_that_the_config_adds_to_a_vocabulary_file(vocab_directory: Path) -> None:
    number = 5 + len(WORDS)
    stated = {str(number): {"content": "[ENT]", "special": True}, "2": {"content": "[CLS]", "special": True}}
    told = {"tokenizer_class": "BertTokenizer", "added_tokens_decoder": stated}
    (vocab_directory / "tokenizer_config.json").write_text(json.dumps(told))
    as_transformers(vocab_directory, vocab_directory / "exported", ["the [ENT] and the cafe", "a tab"])
    assert number in TextTokenizer.load(vocab_directory).encode(["a [ENT]"]).input_ids


@pytest.mark.parametrize("whole", [False, True], ids=["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
    ("file", "stated"),
    [
        ("tokenizer_config.json", {"additional_special_tokens": ["[un]", "<e1>"]}),
        ("tokenizer_config.json", {"extra_special_tokens": ["[un]", "<e1>"]}),
        ("special_tokens_map.json", {"additional_special_tokens": ["[un]", "<e1>"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {
            "30": {"content": "[un]", "special": True, "normalized": False},
            "31": {"content": "<e1>", "special": False, "normalized": False, "single_word": True}}}),
        ("added_tokens.json", {"<e1>": 31}),
    ],
    ids=["additional", "extra", "map", "decoder", "added"],
)  # fmt: skip
def test_added_tokens_stay_whole_wherever_they_are_stated(
    vocab_directory: Path, file: str, stated: dict[str, object], whole: bool
) -> None:
    told = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    with (vocab_directory / "vocab.txt").open("a") as vocab:
        vocab.write("[un]\n")
    if whole:
        TextTokenizer.load(vocab_directory).save(vocab_directory, max_length=64)
    content = stated | (told if file == "tokenizer_config.json" else {})
    (vocab_directory / "tokenizer_config.json").write_text(json.dumps(told))
    (vocab_directory / file).write_text(json.dumps(content))
    texts = ["the [un] cafe <e1>tab", "un [UN] <E1> a<e1>a", "two [un]it", "数<e1>据"]
    as_transformers(vocab_directory, vocab_directory / "exported", texts)
    loaded = TextTokenizer.load(vocab_directory)
    assert 31 in loaded.encode(["it <e1>"]).input_ids
    assert loaded.tokenize_texts(texts) == [
        loaded.encode([text]).input_ids[1:-1].astype(loaded.token_dtype).tobytes() for text in texts
    ]


def test_a_token_that_the_model_has_no_vector_for_is_read_as_text(
    vocab_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = TextTokenizer.load(vocab_directory).encode(["it <e1>"]).input_ids.tolist()
    (vocab_directory / "special_tokens_map.json").write_text('{"additional_special_tokens": ["<e1>"]}')
    for size, added in ((5 + len(WORDS), False), (6 + len(WORDS), True)):
        (vocab_directory / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": size}))
        caplog.clear()
        found = TextTokenizer.load(vocab_directory).encode(["it <e1>"]).input_ids.tolist()
        assert (found != before, "names <e1>, but the model has no vector" not in caplog.text) == (added, added)


def test_texts_are_cut_on_the_side_that_the_files_say(vocab_directory: Path) -> None:
    for side in ("left", "right"):
        told = {"tokenizer_class": "BertTokenizer", "truncation_side": side}
        (vocab_directory / "tokenizer_config.json").write_text(json.dumps(told))
        loaded = TextTokenizer.load(vocab_directory)
        loaded.save(vocab_directory / side, max_length=5)
        assert json.loads((vocab_directory / side / "tokenizer_config.json").read_text())["truncation_side"] == side
        for directory in (vocab_directory, vocab_directory / side):
            reference = AutoTokenizer.from_pretrained(directory)
            own = TextTokenizer.load(directory)
            text, pair = "the cafe isn it two", "tab is un and a"
            assert (
                own.encode([text], max_length=5).input_ids.tolist()
                == (reference(text, truncation=True, max_length=5)["input_ids"])
            )
            assert (
                own.encode([text], [pair], max_length=8).input_ids.tolist()
                == (reference(text, pair, truncation=True, max_length=8)["input_ids"])
            )


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_special_tokens_of_other_names(vocab_directory: Path, file: str) -> None:
    lines = (vocab_directory / "vocab.txt").read_text().replace("[CLS]", "<s>").replace("[SEP]", "</s>")
    (vocab_directory / "vocab.txt").write_text(lines)
    (vocab_directory / file).write_text(json.dumps({"cls_token": "<s>", "sep_token": "</s>"}))
    (vocab_directory / "config.json").write_text(json.dumps({"model_type": "bert"}))
    first, *_, last = TextTokenizer.load(vocab_directory).encode(["a tab"]).input_ids.tolist()
    assert [first, last] == [2, 3]
    as_transformers(vocab_directory, vocab_directory / "exported")


@pytest.mark.parametrize(
    ("told", "model", "message"),
    [
        ({"word_tokenizer_type": "mecab", "subword_tokenizer_type": "wordpiece"}, {}, "word_tokenizer_type is 'mecab'"),
        ({"word_tokenizer_type": "basic", "subword_tokenizer_type": "character"}, {}, "is 'character'"),
        ({}, {"tokenizer_class": "BertJapaneseTokenizer"}, "does not say how it parts words"),
    ],
)
def test_a_tokenizer_that_parts_words_by_a_dictionary_is_refused(
    vocab_directory: Path, told: dict[str, str], model: dict[str, str], message: str
) -> None:
    (vocab_directory / "tokenizer_config.json").write_text(json.dumps(told))
    (vocab_directory / "config.json").write_text(json.dumps(model))
    with pytest.raises(UserError, match=message):
        TextTokenizer.load(vocab_directory)


def test_a_vocabulary_with_a_blank_line_and_a_token_twice_keeps_its_ids(vocab_directory: Path) -> None:
    lines = (vocab_directory / "vocab.txt").read_text().splitlines()
    (vocab_directory / "vocab.txt").write_text("\n".join([*lines[:7], "", *lines[7:], "the", "last"]) + "\n")
    loaded = TextTokenizer.load(vocab_directory)
    assert loaded.vocab_size == len(lines) + 3
    assert loaded.vocabulary.size == loaded.vocab_size
    loaded.save(vocab_directory / "exported", 32)
    exported = (vocab_directory / "exported" / "vocab.txt").read_text().splitlines()
    assert len(exported) == loaded.vocab_size
    (vocab_directory / "exported" / "tokenizer.json").unlink()
    again = TextTokenizer.load(vocab_directory / "exported")
    text = ["the cafe is the last"]
    assert again.encode(text).input_ids.tolist() == loaded.encode(text).input_ids.tolist()


def test_a_tokenizer_file_that_adds_no_special_tokens_gets_berts(tmp_path: Path) -> None:
    TextTokenizer.train(TEXTS, 60, True).save(tmp_path, 32)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    loaded = TextTokenizer.load(tmp_path)
    first, *_, last = loaded.encode(["a tab"]).input_ids
    assert (loaded.token(first), loaded.token(last)) == ("[CLS]", "[SEP]")


def test_the_same_texts_give_the_same_vocabulary() -> None:
    """The library alone gives another one each time, where pieces are equally frequent."""
    draw = random.Random(0)
    texts = ["".join(draw.choices("aeinorst ", k=60)) + " É" for _ in range(300)]
    one, *others = [TextTokenizer.train(texts, 300, lowercase=True) for _ in range(4)]
    assert {other.sha256 for other in others} == {one.sha256}
    assert one.vocab_size == 300
    assert [one.token(number) for number in range(7)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##a", "##e"]
    assert one.encode(["[MASK] ##a"]).input_ids.tolist()[1:2] == [4]  # and no piece is a token by itself
    assert "##a" not in [one.token(number) for number in one.encode(["##a"]).input_ids]
    with pytest.raises(TypeError, match="read twice"):
        TextTokenizer.train(iter(texts), 300, lowercase=True)


@pytest.mark.parametrize("text", ["\u200b", "\u0301", "\ufeff"])
def test_a_text_without_tokens_has_no_spans(vocab_directory: Path, text: str) -> None:
    (found,) = TextTokenizer.load(vocab_directory).tokenize_with_spans([text])
    assert (len(found.ids), found.spans.shape) == (0, (0, 2))
