"""WordPiece at the speed of a dictionary: what a word becomes is remembered.

BERT's tokenizer never looks past white space: it cleans, normalises, splits and looks up each word by itself. Running
text repeats its words, so nearly all of them can be answered from memory; only new words go through the `tokenizers`
library. The token ids are exactly the library's (a test compares them on four vocabularies and on random Unicode), at
several times its speed, since it builds a record of offsets, strings and masks for every token.
"""

import json
import re
from collections.abc import Sequence

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
        space or a Chinese character in it, or that looks at what is beside it."""
        content = json.loads(backend.to_str())
        normalizer = content.get("normalizer") or {}
        return (
            normalizer.get("type") == "BertNormalizer"
            and bool(normalizer.get("clean_text"))
            and (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
            and content["model"]["type"] == "WordPiece"
            and not any(
                token["single_word"] or re.search(r"\s", token["content"]) or _CHINESE.search(token["content"])
                for token in content["added_tokens"]
            )
        )

    def tokenize(self, texts: Sequence[str]) -> list[bytes]:
        """The token ids of texts, without special tokens. New words of all texts go to the library in one call."""
        words = [self._words(text) for text in texts]
        memory = self._memory
        if new := list(dict.fromkeys(word for found in words for word in found if word not in memory)):
            encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
            memory.update(
                (word, np.array(encoding.ids, self._dtype).tobytes())
                for word, encoding in zip(new, encodings, strict=True)
            )
        known = memory.__getitem__
        ids = [b"".join(map(known, found)) for found in words]
        if len(memory) > _MOST_WORDS:
            memory.clear()  # what is frequent is soon back
        return ids

    def _words(self, text: str) -> list[str]:
        if _HAS_NOT_WHITE.search(text):
            text = text.translate(_NOT_WHITE)
        if self._splits_chinese and _CHINESE.search(text):
            text = _CHINESE.sub(r" \1 ", text)
        return text.split()
