"""Tokens that are kept are those that tokenising gives, whatever became of the file."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jaxlm.data import token_cache
from jaxlm.data.tokenizer import Encoded, TextTokenizer

TEXTS = ["a good film", "the plot of a dull ending ünd more", "music"] * 40
PAIRS = ["and a scene", "of the actor", "cold"] * 40


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXLM_TOKEN_CACHE", str(tmp_path / "tokens"))
    monkeypatch.setattr(token_cache, "_WORTH_KEEPING", 100)
    return tmp_path / "tokens"


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS + PAIRS, 100, lowercase=True)


@pytest.fixture
def tokenised(tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were tokenised, at each time."""
    calls: list[int] = []
    original = tokenizer.encode

    def counting(texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 512) -> Encoded:
        calls.append(len(texts))
        return original(texts, pairs, max_length)

    monkeypatch.setattr(tokenizer, "encode", counting)
    return calls


def assert_same(found: Encoded, expected: Encoded) -> None:
    for one, other in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert found.truncated == expected.truncated > 0


def test_texts_are_tokenised_once(place: Path, tokenizer: TextTokenizer, tokenised: list[int]) -> None:
    first, second = (token_cache.encode(tokenizer, TEXTS, PAIRS, 8) for _ in range(2))
    assert tokenised == [120]
    assert_same(second, first)


def test_whatever_changes_the_tokens_is_another_file(
    place: Path, tokenizer: TextTokenizer, tokenised: list[int]
) -> None:
    other = TextTokenizer.train(PAIRS, 60, lowercase=False)
    moved = ["a good filmt", "he plot of a dull ending ünd more", *TEXTS[2:]]  # the same characters, cut elsewhere
    content = tokenizer.to_json()  # of one that is alike, but for the types of its tokens
    alike = TextTokenizer.from_json(content | {"settings": content["settings"] | {"model_input_names": ["input_ids"]}})
    assert alike.sha256 == tokenizer.sha256
    cases = [
        (tokenizer, TEXTS, None, 8), (tokenizer, TEXTS, None, 7), (tokenizer, moved, None, 8), (other, TEXTS, None, 8),
        (tokenizer, TEXTS, PAIRS, 8), (tokenizer, PAIRS, TEXTS, 8), (alike, TEXTS, PAIRS, 8),
        (tokenizer, TEXTS + PAIRS, None, 8), (tokenizer, TEXTS[::-1], None, 8),
    ]  # fmt: skip
    for _ in range(2):
        for tokens_of, *texts in cases:
            assert_same(token_cache.encode(tokens_of, *texts), TextTokenizer.encode(tokens_of, *texts))
    assert len(list(place.iterdir())) == len(cases)
    assert len(tokenised) == len(cases) - 2  # `other` and `alike` do not count


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", None], ids=["empty", "cut", "half"])
def test_a_damaged_file_is_made_anew(
    place: Path, tokenizer: TextTokenizer, tokenised: list[int], content: bytes | None
) -> None:
    expected = token_cache.encode(tokenizer, TEXTS, None, 6)
    (file,) = place.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert_same(token_cache.encode(tokenizer, TEXTS, None, 6), expected)
    assert_same(token_cache.encode(tokenizer, TEXTS, None, 6), expected)
    assert len(tokenised) == 2


def test_a_place_that_cannot_be_written_is_no_error(
    place: Path, tokenizer: TextTokenizer, tokenised: list[int]
) -> None:
    place.write_text("a file")
    expected = TextTokenizer.encode(tokenizer, TEXTS, None, 6)
    assert_same(token_cache.encode(tokenizer, TEXTS, None, 6), expected)
    assert place.read_text() == "a file"


def test_few_texts_leave_no_file(place: Path, tokenizer: TextTokenizer) -> None:
    token_cache.encode(tokenizer, TEXTS[:3], None, 8)
    assert not place.exists()


def test_what_was_not_used_for_longest_goes_first(
    place: Path, tokenizer: TextTokenizer, tokenised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    token_cache.encode(tokenizer, TEXTS, None, 8)
    (first,) = place.iterdir()
    token_cache.encode(tokenizer, TEXTS, None, 7)
    (second,) = set(place.iterdir()) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    token_cache.encode(tokenizer, TEXTS, None, 8)  # used, and so newer than the second
    monkeypatch.setattr(token_cache, "_MOST_BYTES", 2 * first.stat().st_size + 100)
    token_cache.encode(tokenizer, TEXTS, None, 6)
    assert first.exists()
    assert not second.exists()
    assert len(list(place.iterdir())) == 2
