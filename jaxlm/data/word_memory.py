"""WordPiece at the speed of a dictionary: what a word becomes is remembered.

BERT's tokenizer never looks past white space: it cleans, normalises, splits and looks up each word by itself. Running
text repeats its words, so nearly all of them can be answered from memory; only new words go through the `tokenizers`
library. The token ids are exactly the library's (a test compares them on four vocabularies and on random Unicode), at
several times its speed, since it builds a record of offsets, strings and masks for every token.
"""

import json
import re

import numpy as np
import tokenizers

# The normaliser removes these (they are control characters), while `str.split` would part words at them.
_NOT_WHITE = {ord(c): None for c in "\x0b\x0c\x1c\x1d\x1e\x1f\x85"}
_HAS_NOT_WHITE = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
# The greater part of what BERT's tokenizer sets apart as Chinese characters; it does the rest itself.
_CHINESE = re.compile("([\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002a6df])")
_MOST_WORDS = 1 << 18  # of a memory: some 40 MB


class WordMemory:
    """Token ids of texts, as little-endian bytes.

    Args:
      backend: a tokenizer for which `serves` is true.
      dtype: `uint16` or `uint32`, wide enough for the vocabulary.
    """

    def __init__(self, backend: tokenizers.Tokenizer, dtype: np.dtype):
        self._backend = backend
        self._dtype = dtype
        self._memory: dict[str, bytes] = {}
        self._splits_chinese = bool(json.loads(backend.to_str())["normalizer"]["handle_chinese_chars"])

    @staticmethod
    def serves(backend: tokenizers.Tokenizer) -> bool:
        """Whether a tokenizer treats each word by itself: BERT's normaliser and pre-tokenizer, and no token with a
        space in it."""
        content = json.loads(backend.to_str())
        normalizer = content.get("normalizer") or {}
        return (
            normalizer.get("type") == "BertNormalizer"
            and bool(normalizer.get("clean_text"))
            and (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
            and content["model"]["type"] == "WordPiece"
            and not any(re.search(r"\s", token["content"]) for token in content["added_tokens"])
        )

    def tokenize(self, text: str) -> bytes:
        """The token ids of a text, without special tokens."""
        if _HAS_NOT_WHITE.search(text):
            text = text.translate(_NOT_WHITE)
        if self._splits_chinese and _CHINESE.search(text):
            text = _CHINESE.sub(r" \1 ", text)
        words = text.split()
        memory = self._memory
        try:
            return b"".join(map(memory.__getitem__, words))
        except KeyError:
            pass
        new = list(dict.fromkeys(word for word in words if word not in memory))
        encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
        found = {word: np.array(e.ids, self._dtype).tobytes() for word, e in zip(new, encodings, strict=True)}
        if len(memory) + len(found) <= _MOST_WORDS:
            memory.update(found)
            return b"".join(map(memory.__getitem__, words))
        return b"".join(found[word] if word in found else memory[word] for word in words)
