"""Sentences of words as windows of tokens: long ones are cut, and each word is read in one window, amid its context."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlm.data.tokenizer import TextTokenizer


class Windows(NamedTuple):
    """Token ids of windows with [CLS] and [SEP], one after the other; most sentences are one window."""

    input_ids: np.ndarray  # [tokens] int32
    offsets: np.ndarray  # [windows + 1] int64
    sentence: np.ndarray  # [windows] int64, ascending
    first_token: np.ndarray  # [words of all sentences] int64: the token that speaks for each word; -1: there is none
    cut_sentences: int  # sentences of several windows
    cut_words: int  # words of more tokens than a window has room for; the rest of them is lost


def windows_of_words(
    tokenizer: TextTokenizer, sentences: Sequence[Sequence[str]], max_length: int, overlap: float
) -> Windows:
    """Tokenises sentences, word by word, and lays them into windows.

    A word's first token speaks for it (Devlin et al. 2019, section 5.3). A sentence of more tokens than a window has
    room for is cut between words into windows that overlap, and of the windows that hold a word, the one speaks for it
    in which the nearer end of the window is farthest; the ends of the sentence count as infinitely far.

    Args:
      max_length: most tokens of a window, [CLS] and [SEP] included.
      overlap: the share of a window that the next one repeats, below 1.
    """
    pieces = tokenizer.tokenize_words(dict.fromkeys(word for words in sentences for word in words))
    room = max_length - 2
    first, last = tokenizer.special_ids["cls"], tokenizer.special_ids["sep"]
    tokens: list[int] = []
    offsets, sentence = [0], []
    first_token: list[int] = []
    cut_sentences = cut_words = 0
    for number, words in enumerate(sentences):
        of_words = [pieces[word] for word in words]
        sizes = np.array([len(ids) for ids in of_words], np.int64)
        cut_words += int((sizes > room).sum())
        spans = cut(np.minimum(sizes, room), room, overlap)
        cut_sentences += len(spans) > 1
        speaks = np.full(len(words), -1, np.int64)
        for start, end, mine in spans:
            tokens.append(first)
            for word in range(start, end):
                if of_words[word] and mine[0] <= word < mine[1]:
                    speaks[word] = len(tokens)
                tokens.extend(of_words[word][:room])
            tokens.append(last)
            offsets.append(len(tokens))
            sentence.append(number)
        first_token.extend(speaks.tolist())
    return Windows(
        np.array(tokens, np.int32), np.array(offsets, np.int64), np.array(sentence, np.int64),
        np.array(first_token, np.int64), cut_sentences, cut_words,
    )  # fmt: skip


def cut(sizes: np.ndarray, room: int, overlap: float) -> list[tuple[int, int, tuple[int, int]]]:
    """The windows of a sentence.

    Args:
      sizes: tokens of each word, at most `room` each.

    Returns:
      Of each window, the words `start` to `end` - 1 that it holds, and the first and the end of those that it speaks
      for; the latter follow upon each other and are all words.
    """
    ends = np.cumsum(sizes)
    if not len(sizes) or ends[-1] <= room:
        return [(0, len(sizes), (0, len(sizes)))]
    starts = ends - sizes
    bounds = [(0, int(np.searchsorted(ends, room, side="right")))]
    while (until := bounds[-1][1]) < len(sizes):
        # Back by the overlap, but not so far that the next word would not fit, and on by a word at least.
        back = np.searchsorted(starts, max(ends[until - 1] - overlap * room, ends[until] - room), side="left")
        start = min(max(int(back), bounds[-1][0] + 1), until)
        bounds.append((start, int(np.searchsorted(ends, starts[start] + room, side="right"))))
    middles = (starts + ends) / 2
    context = np.full((len(bounds), len(sizes)), -1.0)
    for window, (start, end) in enumerate(bounds):
        left = middles[start:end] - starts[start] if start else np.inf
        right = ends[end - 1] - middles[start:end] if end < len(sizes) else np.inf
        context[window, start:end] = np.minimum(left, right)
    owner = context.argmax(0)
    mine = np.searchsorted(owner, np.arange(len(bounds) + 1))
    return [(start, end, (int(mine[w]), int(mine[w + 1]))) for w, (start, end) in enumerate(bounds)]
