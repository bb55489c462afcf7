"""A corpus that is always there: the English documentation that Python and its scientific packages carry.

Docstrings of the standard library, numpy, scipy, scikit-learn, jax, flax and optax, and Python's own topic pages, hold
some two million words of technical English that need no network and no file. Two things are made of them:

- `pretraining_texts`: documents (a docstring each) for masked-language modelling;
- `topic_passages`: passages of 20 to 80 words, each labelled with the part of a library that it documents, without the
  names that give the label away.

Both are split by module (a file), so that a held-out passage has no neighbour from its own page in training.
The same installation gives the same corpus in the same order. Files are parsed, never imported.
"""

import functools
import gc
import hashlib
import importlib.util
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from jaxlm.data.docstrings import PARAMETER, Document, documents_of, is_prose, paragraphs, python_files, sentences

Split = Literal["train", "dev", "test"]
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")

# What is imported, and the package to install for it. (The package called sklearn is not scikit-learn.)
LIBRARIES = {name: name for name in ("numpy", "scipy", "jax", "flax", "optax")} | {"sklearn": "scikit-learn"}


MIN_WORDS, MAX_WORDS = 20, 80  # of a passage
MIN_TOPICS = 10  # with fewer it would be another, easier task
_HELD_OUT = 0.18  # of a topic's passages, at most, in dev; and as many in test
_UNLABELLED_DEV = 0.02  # of the modules outside all topics: enough to measure a loss on
_TELLING_WORDS = 6  # of a sentence: one that is held out is so wherever it occurs, but shorter ones recur by chance


class Topic(NamedTuple):
    """A class of the classification task."""

    label: str
    paths: tuple[str, ...]  # the folders and files that it is made of
    giveaways: tuple[str, ...]  # beginnings of the words that name the label or its packages, in lower case


TOPICS = (
    Topic("statistics", ("scipy/stats/",), ("statist", "stats")),
    Topic("signal processing", ("scipy/signal/",), ("signal", "processing")),
    Topic("optimisation", ("scipy/optimize/",), ("optimi",)),
    Topic("interpolation", ("scipy/interpolate/",), ("interpol",)),
    Topic("linear algebra", ("scipy/linalg/", "numpy/linalg/"), ("linear", "algebra", "linalg")),
    Topic("sparsity", ("scipy/sparse/",), ("spars", "issparse")),
    Topic("linear models", ("sklearn/linear_model/",), ("linear", "model")),
    Topic("ensembles", ("sklearn/ensemble/",), ("ensembl",)),
    Topic("clustering", ("sklearn/cluster/", "scipy/cluster/"), ("cluster",)),
    Topic("metrics", ("sklearn/metrics/",), ("metric",)),
    Topic(
        "preprocessing",
        ("sklearn/preprocessing/", "sklearn/feature_extraction/", "sklearn/impute/"),
        ("preprocess", "pre-process", "extraction", "imput"),
    ),
    Topic("gradient descent", ("optax/",), ("optax", "gradient", "descent")),
    Topic("neural networks", ("flax/",), ("flax", "linen", "nnx", "neural", "network")),
    Topic(
        "concurrency",
        ("asyncio/", "concurrent/", "multiprocessing/", "threading.py", "queue.py"),
        ("concurren", "asyncio", "multiprocess", "threading", "queue"),
    ),
    Topic("email", ("email/",), ("email", "e-mail")),
    Topic(
        "internet protocols",
        ("http/", "urllib/", "xmlrpc/", "wsgiref/", "socketserver.py", "smtplib.py", "ftplib.py", "imaplib.py"),
        ("internet", "protocol", "http", "urllib", "rpc", "xmlrpc", "wsgi", "socketserver", "smtp", "ftp", "imap"),
    ),
)
_LIBRARY_NAMES = ("numpy", "scipy", "scikit", "sklearn", "jax", "jnp", "flax", "optax")
# Every topic's words are taken out of every passage: were only its own, the gaps would tell the label.
_GIVEAWAYS = tuple(sorted({word for topic in TOPICS for word in topic.giveaways} | set(_LIBRARY_NAMES)))


class TooFewTopics(ValueError):
    """The packages that the classification task is made of are not installed."""


class Passage(NamedTuple):
    """An example of the classification task."""

    text: str
    label: str
    source: str  # "scipy/stats/_continuous_distns.py:norm_gen"; for messages to people

    @property
    def module(self) -> str:
        return self.source.partition(":")[0]


def pretraining_texts(split: Split) -> list[str]:
    """Documents for masked-language modelling, code examples left out: a line for each paragraph.

    'train' has the documents of the training modules without the sentences that occur in held-out modules too, 'dev'
    and 'test' those of the held-out modules. Libraries that are not installed are left out.

    Raises:
      ValueError: there is no such split.
    """
    return installed_corpus().pretraining_texts(split)


def topic_passages(split: Split, per_class: int | None = None) -> list[Passage]:
    """`(text, label, source)` of each passage, in an order that mixes the labels.

    Args:
      split: 'train', 'dev' or 'test'. No module and no text occurs in two of them.
      per_class: the most passages of a label; fewer are always among the more. None takes all, and then the largest
        topic has several times the passages of the smallest.

    Raises:
      TooFewTopics: so few packages are installed that fewer than `MIN_TOPICS` labels are left.
      ValueError: there is no such split.
    """
    corpus = installed_corpus()
    if len(corpus.labels) < MIN_TOPICS:
        missing = [package for name, package in LIBRARIES.items() if importlib.util.find_spec(name) is None]
        raise TooFewTopics(
            f"the documentation installed here has passages of {len(corpus.labels)} topics "
            f"({', '.join(corpus.labels) or 'none'}) and the task needs {MIN_TOPICS}: install "
            f"{', '.join(missing) or 'a complete standard library'}, or train on data of your own"
        )
    return corpus.topic_passages(split, per_class)


@functools.cache
def installed_corpus() -> "Corpus":
    """The corpus of this Python installation; made once a process, in some seconds."""
    folders = {"": Path(sysconfig.get_path("stdlib"))}
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        if spec is not None and spec.submodule_search_locations:
            folders[f"{library}/"] = Path(spec.submodule_search_locations[0])
    # Syntax trees are millions of objects and no garbage: looking for some among them costs a second, and more with
    # jax's objects in memory.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return Corpus(folders)
    finally:
        if collecting:
            gc.enable()


class Corpus:
    """Documents and passages of some folders of Python files, split by module.

    Args:
      folders: where the files lie, by how the paths of their modules begin ("scipy/"; "" for the standard library).
    """

    def __init__(self, folders: Mapping[str, Path]):
        first: dict[str, Document] = {}  # of those with the same text
        for prefix, folder in folders.items():
            for path in python_files(folder):
                for document in documents_of(path, prefix + path.relative_to(folder).as_posix()):
                    first.setdefault(document.text, document)
        self.documents = tuple(first.values())
        passages = _of_one_label(
            [
                Passage(text, label, f"{document.module}:{document.name}".removesuffix(":"))
                for document in self.documents
                if (label := label_of(document.module)) is not None
                for text in passages_of(document)
            ]
        )
        sizes = Counter(dict.fromkeys((document.module for document in self.documents), 0))
        sizes.update(passage.module for passage in passages)
        self.split_of_module = split_modules(sizes)
        self._passages = _without_repeats(passages, self.split_of_module)
        counts = Counter((passage.label, split) for split, of_split in self._passages.items() for passage in of_split)
        # What has no passage to learn, choose or test by is no label, such as that of a library that is not here.
        self.labels = [topic.label for topic in TOPICS if all(counts[topic.label, split] for split in _SPLITS)]

    def topic_passages(self, split: Split, per_class: int | None = None) -> list[Passage]:
        """See the function of the same name."""
        _check(split)
        taken: Counter[str] = Counter()
        passages = []
        for passage in sorted(self._passages[split], key=lambda passage: _uniform(passage.text)):
            if passage.label in self.labels and (per_class is None or taken[passage.label] < per_class):
                taken[passage.label] += 1
                passages.append(passage)
        return passages

    def pretraining_texts(self, split: Split) -> list[str]:
        """See the function of the same name."""
        _check(split)
        held_out = self._held_out_sentences if split == "train" else frozenset()
        texts = []
        for document in self.documents:
            if self.split_of_module[document.module] == split:
                kept = [
                    " ".join(sentence for sentence in sentences(paragraph) if _words(sentence) not in held_out)
                    for paragraph in paragraphs(document.text)
                    if ">>>" not in paragraph
                ]
                text = "\n".join(paragraph for paragraph in kept if paragraph)
                if text:
                    texts.append(text)
        return texts

    @functools.cached_property
    def _held_out_sentences(self) -> frozenset[str]:
        """The telling sentences of the modules in dev and test."""
        return frozenset(
            sentence
            for document in self.documents
            if self.split_of_module[document.module] != "train"
            for paragraph in paragraphs(document.text)
            for sentence in _telling_sentences(paragraph)
        )


def label_of(module: str) -> str | None:
    """The label of the topic that a module belongs to, None if to none."""
    return next((topic.label for topic in TOPICS if module.startswith(topic.paths)), None)


def split_modules(sizes: Mapping[str, int]) -> dict[str, Split]:
    """The split of each module, from its number of passages and the hash of its path.

    In the order of their hashes, a topic's modules go to the one of dev and test that has more room, while it has room
    for all of the module's passages, and else to training. So dev and test have several modules each, and none that is
    a large part of its topic. Few of the modules outside all topics go to dev, none to test.
    """
    splits: dict[str, Split] = {}
    by_label: dict[str | None, list[str]] = defaultdict(list)
    for module in sorted(sizes, key=_uniform):
        by_label[label_of(module)].append(module)
    for module in by_label.pop(None, []):
        splits[module] = "dev" if _uniform(module) < _UNLABELLED_DEV else "train"
    for modules in by_label.values():
        room: dict[Split, float] = dict.fromkeys(("test", "dev"), _HELD_OUT * sum(sizes[module] for module in modules))
        for module in modules:
            roomier = max(room, key=lambda split: room[split])
            size = max(sizes[module], 1)  # a module without passages has documents
            splits[module] = roomier if size <= room[roomier] else "train"
            room[roomier] -= size if splits[module] == roomier else 0
    return splits


def _of_one_label(passages: list[Passage]) -> list[Passage]:
    """The passages but those whose text is found under several labels: boilerplate that documents none of them."""
    labels: dict[str, set[str]] = defaultdict(set)
    for passage in passages:
        labels[_words(passage.text)].add(passage.label)
    return [passage for passage in passages if len(labels[_words(passage.text)]) == 1]


def _without_repeats(passages: list[Passage], split_of_module: Mapping[str, Split]) -> dict[Split, list[Passage]]:
    """The passages of each split, each text once.

    No telling sentence of test is in dev, and none of both in training: the modules of a topic share boilerplate, and
    to have learnt that by heart should not count.
    """
    of_split: dict[Split, list[Passage]] = {split: [] for split in _SPLITS}
    held_out: set[str] = set()
    for split in reversed(_SPLITS):
        seen: set[str] = set()
        for passage in passages:
            if split_of_module[passage.module] == split:
                repeatable = {_words(passage.text), *_telling_sentences(passage.text)}
                if held_out.isdisjoint(repeatable) and _words(passage.text) not in seen:
                    seen |= repeatable
                    of_split[split].append(passage)
        held_out |= seen
    return of_split


def _telling_sentences(paragraph: str) -> list[str]:
    """The words of the sentences that are too long to recur by chance."""
    return [words for words in map(_words, sentences(paragraph)) if words.count(" ") >= _TELLING_WORDS - 1]


def passages_of(document: Document) -> Iterator[str]:
    """Runs of prose of `MIN_WORDS` to `MAX_WORDS`, each as many whole paragraphs as fit, names concealed."""
    own_names = frozenset(part.strip("_").lower() for part in document.module.removesuffix(".py").split("/"))
    run: list[str] = []
    for piece in _prose(document.text):
        words = conceal(piece, own_names).split()
        if not words or len(run) + len(words) > MAX_WORDS:
            if len(run) >= MIN_WORDS:
                yield " ".join(run)
            run = []
        if len(words) <= MAX_WORDS:
            run += words


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of prose, the sentences of one that is too long; "" wherever something else ends a run of them.

    The "name : type" of a parameter ends no run: a passage may hold the descriptions of several parameters.
    """
    for paragraph in paragraphs(text):
        if is_prose(paragraph):
            yield from [paragraph] if len(paragraph.split()) <= MAX_WORDS else sentences(paragraph)
        elif not PARAMETER.match(paragraph):
            yield ""
    yield ""


_CROSS_REFERENCE = re.compile(r":[a-z][\w:-]*:`[^`]*`|`[^`]*<[^`]*>`_*|\[\w+\]_")  # :func:`~a.b`, `text <link>`_, [1]_
_DOTTED_NAME = re.compile(r"\b[^\W\d]\w+(\.\w+)+")  # not "e.g."
_WORD = re.compile(r"\w+(?:-\w+)*")
_WORD_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of camelCase, snake_case, com-pounds
_EMPTY = re.compile(r"\(\s*\)|\"\s*\"|'\s*'")
_GAP = re.compile(r"\s+(?=[.,;:)])|(?<=\()\s+")


def conceal(text: str, own_names: frozenset[str] = frozenset()) -> str:
    """The text without cross-references, dotted names, `own_names` and the words that name any topic or library."""

    def shown(match: re.Match[str]) -> str:
        return " " if gives_away(match[0]) or not own_names.isdisjoint(_names_in(match[0])) else match[0]

    for pattern in (_CROSS_REFERENCE, _DOTTED_NAME):
        text = pattern.sub(" ", text)
    text = _WORD.sub(shown, text.replace("`", " "))
    return _GAP.sub("", _EMPTY.sub(" ", text)).lstrip(" ,.;:")


@functools.cache
def gives_away(word: str) -> bool:
    """Whether a word or a part of it (`MetricScorer`, `linear_model`) begins like a name of any topic or library."""
    return any(part.lower().startswith(_GIVEAWAYS) for part in (*_names_in(word), *_WORD_PART.findall(word)))


@functools.cache
def _names_in(word: str) -> frozenset[str]:
    """A word and its parts between hyphens, in lower case and without outer underscores."""
    return frozenset(part.strip("_").lower() for part in (word, *word.split("-")))


def _words(text: str) -> str:
    """What two texts must share to count as the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _uniform(text: str) -> float:
    """A number in [0, 1) that is always the same for a text (Python's `hash` is not) and as good as random."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _check(split: str) -> None:
    if split not in _SPLITS:
        raise ValueError(f"the splits are {', '.join(_SPLITS)}, not {split!r}")
