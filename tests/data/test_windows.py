"""Windows over long sentences: no word is lost, and each is read once, where it has context."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.data.windows import cut, windows_of_words


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_every_word_is_held_whole_by_the_one_window_that_speaks_for_it(overlap: float) -> None:
    draw = np.random.default_rng(0)
    for _ in range(500):
        room, count = draw.integers(1, 20), draw.integers(0, 60)
        sizes = draw.integers(0, min(6, room) + 1, count)
        spoken_for = []
        for start, end, (first, last) in cut(sizes, room, overlap):
            assert sizes[start:end].sum() <= room
            assert first == last or start <= first < last <= end
            spoken_for += range(first, last)
        assert spoken_for == list(range(count))


def test_a_word_is_spoken_for_where_the_nearer_end_is_farthest() -> None:
    windows = cut(np.ones(20, int), 8, 0.5)
    assert [(start, end) for start, end, _ in windows] == [(0, 8), (4, 12), (8, 16), (12, 20)]
    assert [mine for _, _, mine in windows] == [(0, 6), (6, 10), (10, 14), (14, 20)]


def test_the_token_that_speaks_for_a_word_is_its_first(tokenizer: TextTokenizer) -> None:
    draw = random.Random(1)
    vocabulary = ["film", "filmed", "goodness", "\u200b", "unheard-of", "Émile", "日本"]
    sentences = [[draw.choice(vocabulary) for _ in range(length)] for length in (1, 5, 90, 12, 200)]
    found = windows_of_words(tokenizer, sentences, 16, 0.5)
    pieces = tokenizer.tokenize_words(vocabulary)
    assert pieces["\u200b"] == []
    assert (np.diff(found.offsets) <= 16).all()
    assert found.cut_sentences >= 2
    assert found.cut_words == 0
    words = list(itertools.chain(*sentences))
    of_words = np.repeat(np.arange(5), [len(sentence) for sentence in sentences])
    for word, sentence, token in zip(words, of_words, found.first_token, strict=True):
        if not pieces[word]:
            assert token == -1
            continue
        assert found.input_ids[token : token + len(pieces[word])].tolist() == pieces[word]
        window = np.searchsorted(found.offsets, token, side="right") - 1
        assert found.sentence[window] == sentence
        assert token + len(pieces[word]) < found.offsets[window + 1]  # [SEP] comes after it
    spoken = found.first_token[found.first_token >= 0]
    assert (np.diff(spoken) > 0).all()


def test_a_word_too_long_for_a_window_is_cut_and_counted(tokenizer: TextTokenizer) -> None:
    letter = next(token[2] for token in tokenizer.vocab if token.startswith("##") and token[2:] in tokenizer.vocab)
    long = letter * 40
    assert len(tokenizer.tokenize_words([long])[long]) > 6
    found = windows_of_words(tokenizer, [["film", long, "film"]], 8, 0.5)
    assert found.cut_words == 1
    assert (found.first_token >= 0).all()
    assert (np.diff(found.offsets) <= 8).all()


def test_tokens_are_transformers_of_text_that_is_split_into_words(tiny_model: Path, tokenizer: TextTokenizer) -> None:
    words = ["Good", "film.", "don't", "\u200b", "[MASK]", "naïve", "北京", "x" * 120, "3.5"]
    reference = AutoTokenizer.from_pretrained(tiny_model)(words, is_split_into_words=True)
    found = windows_of_words(tokenizer, [words], 500, 0.5)
    assert found.input_ids.tolist() == reference["input_ids"]
    owners = reference.word_ids()
    assert found.first_token.tolist() == [owners.index(word) if word in owners else -1 for word in range(len(words))]
