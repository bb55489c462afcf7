"""Text to token ids, by the Rust `tokenizers` library and nothing slower; the files are Hugging Face's."""

import functools
import hashlib
import json
import logging
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import normalizers, pre_tokenizers, processors

from jaxlm.atomic import write_atomically
from jaxlm.data.masking import Vocabulary
from jaxlm.data.word_memory import WordMemory
from jaxlm.errors import UserError

# A consonant of these scripts keeps the marks that are written around it.
_SPACELESS = r"[\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]\p{M}*"
# Categories of what is drawn with the character before it: accents, joiners, variation selectors.
_DRAWN_WITH = ("Mn", "Mc", "Me", "Cf")
_BERT_TOKENIZERS = tuple(f"{name}{fast}" for name in ("BertTokenizer", "DistilBertTokenizer") for fast in ("", "Fast"))
log = logging.getLogger("jaxlm")

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Encoded(NamedTuple):
    """Texts as token ids, one after the other; text `i` is `input_ids[offsets[i]:offsets[i + 1]]`."""

    input_ids: np.ndarray  # [tokens] int32
    token_type_ids: np.ndarray  # [tokens] int8
    offsets: np.ndarray  # [texts + 1] int64
    truncated: int  # texts that were cut


class Spans(NamedTuple):
    """A text as tokens, and the characters of the text that each stands for."""

    ids: np.ndarray  # [tokens] int32
    spans: np.ndarray  # [tokens, 2] int32: the first character, and the one after the last


class TextTokenizer:
    """A WordPiece tokenizer. Padding or truncation that its file carries is taken off: both are the data's business."""

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict):
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._settings = settings
        ids = {token: backend.token_to_id(settings.get(name, default)) for name, default, token in (
            ("pad_token", "[PAD]", "pad"), ("unk_token", "[UNK]", "unk"), ("cls_token", "[CLS]", "cls"),
            ("sep_token", "[SEP]", "sep"), ("mask_token", "[MASK]", "mask"))}  # fmt: skip
        missing = [name for name, number in ids.items() if number is None]
        if missing:
            names = ", ".join(missing)
            raise UserError(f"the tokenizer has no {names} token; a BERT has [PAD], [UNK], [CLS], [SEP] and [MASK]")
        self.special_ids = {name: number for name, number in ids.items() if number is not None}

    @functools.cached_property
    def vocab_size(self) -> int:
        """Token ids are below it. A vocab.txt with a blank line, or a token twice, has fewer tokens."""
        return max(self._backend.get_vocab().values()) + 1

    @property
    def token_dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every token id."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    @property
    def vocab(self) -> dict[str, int]:
        return self._backend.get_vocab()

    def token(self, number: int) -> str:
        return self._backend.id_to_token(number) or ""

    def token_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What masking needs to know."""
        continues = np.zeros(self.vocab_size, bool)
        for token, number in self._backend.get_vocab().items():
            continues[number] = token.startswith("##")
        return Vocabulary(self.vocab_size, self.special_ids, continues)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the tokenizer's whole definition."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def tokenize_texts(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text without special tokens and without a limit of length, as bytes of `token_dtype`."""
        if self._memory is not None:
            return self._memory.tokenize(texts)

        def ids(text: str) -> bytes:
            encodings = self._backend.encode_batch_fast(text.split("\n"), add_special_tokens=False)
            return b"".join(np.array(encoding.ids, self.token_dtype).tobytes() for encoding in encodings)

        return [ids(text) for text in texts]

    def tokenize_text(self, text: str) -> np.ndarray:
        """`tokenize_texts` of one text, as an array of `token_dtype`."""
        return np.frombuffer(self.tokenize_texts([text])[0], self.token_dtype)

    def tokenize_words(self, words: Iterable[str]) -> dict[str, list[int]]:
        """Token ids of single words without special tokens; of a word with nothing to keep in it, none.

        As transformers does with `is_split_into_words`: a word in a sentence is tokenised as it is by itself.
        """
        words = list(words)
        inputs = [[word] for word in words]
        encodings = self._backend.encode_batch_fast(inputs, is_pretokenized=True, add_special_tokens=False)
        return {word: encoding.ids for word, encoding in zip(words, encodings, strict=True)}

    def tokenize_with_spans(self, texts: Sequence[str]) -> list[Spans]:
        """Tokens of texts without special tokens, on all cores, and where in the text each lies.

        What the tokenizer drops after a token but is drawn with it (the accents of an uncased vocabulary, joiners,
        variation selectors) counts as the token's: text that is cut out by tokens ends where a reader sees it end.
        """
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        found = []
        for text, encoding in zip(texts, encodings, strict=True):
            spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            if len(spans) and not text.isascii():
                _take_in_what_is_drawn_with(text, spans)
            found.append(Spans(np.array(encoding.ids, np.int32), spans))
        return found

    @functools.cached_property
    def _memory(self) -> WordMemory | None:
        return WordMemory(self._backend, self.token_dtype) if WordMemory.serves(self._backend) else None

    @classmethod
    def load(cls, directory: Path) -> "TextTokenizer":
        """Reads `tokenizer.json`, or makes it of `vocab.txt`, and adds the tokens that the files beside it state, as
        transformers does: what `tokenizer_config.json` says of a `BertTokenizer` goes before `tokenizer.json`.

        Raises:
          UserError: neither file is there, one is damaged, or words are not parted as BERT's are.
        """
        directory = Path(directory)
        try:
            settings = _stated(directory / "special_tokens_map.json") | _stated(directory / "tokenizer_config.json")
            settings = {key: _content(value) for key, value in settings.items()}
            model = _read_json(directory / "config.json")
            kind = settings.get("tokenizer_class") or model.get("tokenizer_class")
            _refuse_morphemes(settings, kind)
            if (directory / "tokenizer.json").is_file():
                _refuse_pointer(directory / "tokenizer.json")
                backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
                is_bert = kind in _BERT_TOKENIZERS if kind else model.get("model_type") == "bert"
                if is_bert and isinstance(backend.normalizer, normalizers.BertNormalizer):
                    backend.normalizer = _bert_normalizer(settings)
                if backend.post_processor is None:
                    backend.post_processor = _post_processor(backend, settings)
                _add_tokens(backend, directory, settings, model.get("vocab_size"))
                return cls(backend, settings)
            if (directory / "vocab.txt").is_file():
                _refuse_pointer(directory / "vocab.txt")
                lines = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
                vocab = {token.rstrip("\r"): number for number, token in enumerate(lines) if token.rstrip("\r")}
                backend = _bert_backend(vocab, settings)
                _add_tokens(backend, directory, settings, model.get("vocab_size"))
                return cls(backend, settings)
        except UserError as error:
            raise UserError(f"{directory}: {error}") from None
        except (OSError, ValueError, UnicodeDecodeError) as error:
            raise UserError(f"the tokenizer in {directory} cannot be read: {error}") from None
        except Exception as error:  # the Rust library raises plain Exception for a damaged tokenizer.json
            if type(error) is not Exception:
                raise
            raise UserError(f"{directory / 'tokenizer.json'} is damaged: {error}") from None
        raise UserError(f"{directory} holds no tokenizer (tokenizer.json or vocab.txt)")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, lowercase: bool, *, min_frequency: int = 2, spaceless: bool = False
    ) -> "TextTokenizer":
        """Learns a WordPiece vocabulary of at most `vocab_size` tokens from `texts`.

        The same texts give the same vocabulary. Left alone, the library's trainer numbers the characters that continue
        a word as a hash map happens to lie, and chooses by number between pairs that are equally frequent.

        Args:
          texts: read twice.
          min_frequency: how often a piece must occur to become a token.
          spaceless: characters of scripts that are written without spaces between words stand alone, as Chinese ones
            always do; else a whole clause would be one word, and beyond 100 characters unknown.
        """
        if iter(texts) is texts:
            raise TypeError("texts are read twice: a list is meant, not an iterator")
        settings = {"do_lower_case": lowercase}

        def backend_of(vocab: dict[str, int]) -> tokenizers.Tokenizer:
            backend = _bert_backend(vocab, settings)
            if spaceless:
                alone = pre_tokenizers.Split(tokenizers.Regex(_SPACELESS), "isolated")
                backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, alone])
            return backend

        learning = backend_of({token: number for number, token in enumerate(SPECIAL_TOKENS)})
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        normalized = set().union(*map(learning.normalizer.normalize_str, characters))
        parts = learning.pre_tokenizer.pre_tokenize_str
        inner = sorted(c for c in normalized if [part for part, _ in parts(f"a{c}")] == [f"a{c}"])
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=vocab_size, min_frequency=min_frequency, show_progress=False,
            special_tokens=[*SPECIAL_TOKENS, *(f"##{character}" for character in inner)],
        )  # fmt: skip
        learning.train_from_iterator(texts, trainer)
        return cls(backend_of(learning.get_vocab()), settings)

    def to_json(self) -> dict[str, Any]:
        """All of it, for another process."""
        return {"tokenizer": self._backend.to_str(), "settings": self._settings}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TextTokenizer":
        """What `to_json` of another one gave."""
        return cls(tokenizers.Tokenizer.from_str(content["tokenizer"]), content["settings"])

    @property
    def tells_pairs_apart(self) -> bool:
        """Whether the second text of a pair has token type 1; some models were trained without."""
        return "token_type_ids" in (self._settings.get("model_input_names") or ["token_type_ids"])

    @property
    def max_length(self) -> int | None:
        """The longest input that the tokenizer's files state, in tokens."""
        stated = self._settings.get("model_max_length")
        return stated if isinstance(stated, int) and stated < 10**6 else None

    def save(self, directory: Path, max_length: int) -> None:
        """Writes tokenizer.json, tokenizer_config.json and vocab.txt, which `AutoTokenizer` opens.

        `max_length` is where users of the directory cut a text, unless they say otherwise.
        """

        directory.mkdir(parents=True, exist_ok=True)
        tokens = {number: token for token, number in self._backend.get_vocab().items()}
        normalizer = json.loads(self._backend.to_str())["normalizer"] or {}
        settings = {
            "do_lower_case": normalizer.get("lowercase", True),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
            "model_max_length": max_length,
            "truncation_side": self._settings.get("truncation_side", "right"),
            # BertTokenizer would split words its own way, whatever tokenizer.json says.
            "tokenizer_class": "BertTokenizer" if self._memory is not None else "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", *["token_type_ids"] * self.tells_pairs_apart, "attention_mask"],
        } | {f"{name}_token": self._backend.id_to_token(number) for name, number in self.special_ids.items()}
        write_atomically(directory / "tokenizer.json", self._backend.to_str())
        write_atomically(directory / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
        vocab = [tokens.get(number, f"[hole{number}]") for number in range(self.vocab_size)]
        write_atomically(directory / "vocab.txt", "".join(f"{token}\n" for token in vocab))

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 512) -> Encoded:
        """Encodes texts (or pairs) with [CLS] and [SEP], on all cores; pairs lose tokens from the longer one first, at
        the end unless the tokenizer's files say `truncation_side` left."""
        side = self._settings.get("truncation_side", "right")
        self._backend.enable_truncation(max_length, strategy="longest_first", direction=side)
        try:
            inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
            encodings = self._backend.encode_batch_fast(inputs)
        finally:
            self._backend.no_truncation()
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(encoding.ids) for encoding in encodings], out=offsets[1:])
        ids = np.empty(offsets[-1], np.int32)
        types = np.zeros(offsets[-1], np.int8)
        for encoding, start, stop in zip(encodings, offsets, offsets[1:], strict=False):
            ids[start:stop] = encoding.ids
            if pairs is not None and self.tells_pairs_apart:
                types[start:stop] = encoding.type_ids
        return Encoded(ids, types, offsets, sum(bool(encoding.overflowing) for encoding in encodings))


def _take_in_what_is_drawn_with(text: str, spans: np.ndarray) -> None:
    """Moves the end of each of `spans [tokens, 2]` past characters that no token stands for and that belong to it."""
    starts = [*spans[1:, 0].tolist(), len(text)]
    for token, following in enumerate(starts):
        end = int(spans[token, 1])
        while end < following and unicodedata.category(text[end]) in _DRAWN_WITH:
            end += 1
        spans[token, 1] = end


def _bert_backend(vocab: dict[str, int], settings: dict) -> tokenizers.Tokenizer:
    """BERT's tokenizer (google-research/bert tokenization.py) over a vocabulary."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocab, unk_token=settings.get("unk_token", "[UNK]"), max_input_chars_per_word=100)
    )
    backend.normalizer = _bert_normalizer(settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece(prefix="##")
    special = [settings.get(f"{name}_token", f"[{name.upper()}]") for name in ("pad", "unk", "cls", "sep", "mask")]
    backend.add_special_tokens([token for token in special if token in vocab])
    backend.post_processor = _post_processor(backend, settings)
    return backend


def _refuse_pointer(path: Path) -> None:
    """Stops at what a clone without Git LFS has in place of a file (`jaxlm.models.config` does so, too)."""
    with open(path, "rb") as file:
        if file.read(32).startswith(b"version https://git-lfs"):
            raise UserError(f"{path.name} is a pointer of Git LFS and not the file: run git lfs pull there")


def _stated(path: Path) -> dict[str, Any]:
    """The settings of a file; one that is null has its default."""
    return {key: value for key, value in _read_json(path).items() if value is not None}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    _refuse_pointer(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def _refuse_morphemes(settings: dict[str, Any], kind: str | None) -> None:
    """Stops at a tokenizer that parts words by a dictionary, as many Japanese BERTs do (MeCab, Sudachi, Juman++)."""
    for name, berts in (("word_tokenizer_type", "basic"), ("subword_tokenizer_type", "wordpiece")):
        if (given := settings.get(name)) not in (None, berts):
            raise UserError(f"the tokenizer's {name} is {given!r}; jaxlm parts words as BERT does ({berts!r})")
    if kind == "BertJapaneseTokenizer" and "word_tokenizer_type" not in settings:
        raise UserError(f"the tokenizer is a {kind}, which does not say how it parts words (word_tokenizer_type)")


def _bert_normalizer(settings: dict) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) and "content" in token else token


def _added_token(token: str | dict[str, Any], special: bool) -> tokenizers.AddedToken:
    if isinstance(token, str):
        return tokenizers.AddedToken(token, special=special, normalized=not special)
    flags = {name: bool(token.get(name)) for name in ("lstrip", "rstrip", "single_word")}
    special = bool(token.get("special", special))
    return tokenizers.AddedToken(
        token["content"], special=special, normalized=bool(token.get("normalized", not special)), **flags
    )


def _add_tokens(backend: tokenizers.Tokenizer, directory: Path, settings: dict[str, Any], embedded: int | None) -> None:
    """Adds the tokens that the files beside the vocabulary state and the backend lacks, in the order of their ids, and
    those without one last; tokens of the vocabulary among them are no longer taken apart.

    Args:
      settings: of tokenizer_config.json and special_tokens_map.json.
      embedded: tokens that the model has vectors for; None where no config.json says.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    stated: dict[str, tuple[int | None, tokenizers.AddedToken]] = {}
    for number, token in (settings.get("added_tokens_decoder") or {}).items():
        stated[_content(token)] = int(number), _added_token(token, special=False)
    for token, number in _read_json(directory / "added_tokens.json").items():
        stated.setdefault(token, (int(number), _added_token(token, special=False)))
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(name) or []
        for token in more.values() if isinstance(more, dict) else more:
            stated.setdefault(_content(token), (None, _added_token(token, special=True)))
    size = backend.get_vocab_size()
    for token, (number, added) in sorted(stated.items(), key=lambda item: size if item[1][0] is None else item[1][0]):
        if token in known:
            continue
        if number is None and backend.token_to_id(token) is None and embedded and backend.get_vocab_size() >= embedded:
            log.warning("%s names %s, but the model has no vector for it: it is read as text", directory, token)
            continue
        backend.add_tokens([added])
        if number is not None and (given := backend.token_to_id(token)) != number:
            raise UserError(f"the files beside the vocabulary give {token} the id {number}; after it comes {given}")


def _post_processor(backend: tokenizers.Tokenizer, settings: dict[str, Any]) -> processors.BertProcessing:
    places = []
    for token in (settings.get("sep_token") or "[SEP]", settings.get("cls_token") or "[CLS]"):
        if (number := backend.token_to_id(token)) is None:
            raise UserError(f"the vocabulary has no {token}")
        places.append((token, number))
    return processors.BertProcessing(*places)
