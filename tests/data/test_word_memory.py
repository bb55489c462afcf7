import random
import unicodedata

import numpy as np
import pytest
import tokenizers
from transformers import BertTokenizer

from jaxlm.data.tokenizer import TextTokenizer, _bert_backend
from jaxlm.data.word_memory import WordMemory

TEXT = (
    "The quick brown fox's café naïve résumé 12,000.50 don't—really? “quoted” \uff26\uff35 ﬁne Straße İstanbul ǅ "
    "漢字とカタカナ 東京タワー 한국어 ภาษาไทย ελληνικός кириллица עברית العربية हिन्दी 🙂👩‍👩‍👧 "
    "a\u0301\u0328 \u0301x [MASK] x[SEP]y ##ing"
)


def vocabulary(texts: list[str]) -> dict[str, int]:
    """Pieces of all lengths of the words that occur, so that splitting has something to choose from."""
    draw = random.Random(0)
    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    for text in texts:
        for form in (text, text.lower(), unicodedata.normalize("NFD", text.lower())):
            for word in form.split():
                for _ in range(6):
                    start, end = sorted(draw.sample(range(len(word) + 1), 2)) if len(word) > 1 else (0, 1)
                    tokens[("##" if start else "") + word[start:end]] = None
    return {token: number for number, token in enumerate(tokens)}


def strange_texts(count: int) -> list[str]:
    """Mixtures of words with white space, control characters and characters from all over Unicode."""
    draw = random.Random(1)
    words = TEXT.split()
    blanks = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u2028", "\u3000", "\x0b", "\x0c", "\x1c", "\x1f",
              "\x85", "\u200b", "\ufeff", "\x00", "\ufffd", "\xad", "\u1680", "\u180e", ""]  # fmt: skip

    def piece() -> str:
        if draw.random() < 0.3:
            points = draw.randrange(0x20, 0xD800) if draw.random() < 0.8 else draw.randrange(0x1F000, 0x2FA20)
            return chr(points)
        return draw.choice(words)

    return ["".join(piece() + draw.choice(blanks) for _ in range(draw.randint(1, 30))) for _ in range(count)]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_ids_equal_those_of_transformers_on_any_unicode(lowercase: bool, chinese: bool) -> None:
    texts = [TEXT, TEXT * 3, *strange_texts(400)]
    vocab = vocabulary(texts)
    settings = {"do_lower_case": lowercase, "tokenize_chinese_chars": chinese}
    reference = BertTokenizer(vocab=vocab, **settings)
    backend = _bert_backend(vocab, settings)
    assert WordMemory.serves(backend)
    memory = WordMemory(backend, np.dtype("<u2"))
    for _ in range(2):  # from the library, then from memory
        for text in texts:
            found = np.frombuffer(memory.tokenize([text])[0], "<u2").tolist()
            assert found == reference(text, add_special_tokens=False)["input_ids"], repr(text)


def test_a_full_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXT, *strange_texts(50)]
    backend = _bert_backend(vocabulary(texts), {})
    whole = WordMemory(backend, np.dtype("<u4"))
    expected = whole.tokenize(texts)
    assert len(whole._memory) > 10
    monkeypatch.setattr("jaxlm.data.word_memory._MOST_WORDS", 10)
    small = WordMemory(backend, np.dtype("<u4"))
    assert [small.tokenize([text])[0] for text in texts] == expected
    assert len(small._memory) <= 10


def test_a_tokenizer_that_looks_past_white_space_is_left_to_the_library() -> None:
    vocab = {
        token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "a b"])
    }
    for spoil in (
        lambda backend: backend.add_tokens(["a b"]),
        lambda backend: setattr(backend, "pre_tokenizer", tokenizers.pre_tokenizers.Metaspace()),
        lambda backend: setattr(backend, "normalizer", tokenizers.normalizers.NFC()),
        lambda backend: setattr(backend, "normalizer", tokenizers.normalizers.BertNormalizer(clean_text=False)),
    ):
        backend = _bert_backend(dict(vocab), {})
        spoil(backend)
        assert not WordMemory.serves(backend)
    joined = _bert_backend(dict(vocab), {})
    joined.add_tokens(["a b"])
    assert TextTokenizer(joined, {}).tokenize_text("a b\nb").tolist() == [7, 6]
