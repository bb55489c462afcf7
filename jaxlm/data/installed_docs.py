"""A corpus that is always there: the English documentation that Python and its scientific packages carry.

Docstrings of the standard library, numpy, scipy, scikit-learn, jax, flax and optax, and Python's own topic pages, hold
some two million words of technical English that need no network and no file. Two things are made of them:

- `pretraining_texts`: documents (a docstring each) for masked-language modelling;
- `topic_passages`: passages of 20 to 80 words, each labelled with the part of a library that it documents, without the
  names that give the label away.

Both are split by module (a file), so that a held-out passage has no neighbour from its own page in training.
The same installation gives the same corpus in the same order. Files are parsed, never imported.
"""

import ast
import functools
import gc
import hashlib
import importlib.util
import inspect
import re
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

Split = Literal["train", "dev", "test"]
_SPLITS: tuple[Split, ...] = ("train", "dev", "test")

LIBRARIES = ("numpy", "scipy", "sklearn", "jax", "flax", "optax")

# Tests say little in English, and other people's code would be counted for the library that ships it.
_SKIPPED_FOLDERS = re.compile(
    r"tests?|idlelib|turtledemo|lib2to3|ensurepip|(site|dist)-packages|__pycache__|_vendor|externals"
    r"|array_api_(compat|extra)|cobyqa|pyprima"
)
_TOPIC_PAGES = "pydoc_data/topics.py"  # what `help("assert")` shows: the language reference, as one dict of strings

MIN_WORDS, MAX_WORDS = 20, 80  # of a passage
MIN_TOPICS = 10  # with fewer it would be another, easier task
_HELD_OUT = 0.18  # of a topic's passages, at most, in dev; and as many in test
_UNLABELLED_DEV = 0.02  # of the modules outside all topics: enough to measure a loss on
_TELLING_WORDS = (
    6  # a sentence as long as this is held out from training wherever it occurs; shorter ones recur by chance
)


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
    Topic("asyncio", ("asyncio/",), ("asyncio",)),
    Topic("email", ("email/",), ("email", "e-mail")),
    Topic(
        "internet protocols",
        ("http/", "urllib/", "xmlrpc/", "wsgiref/", "socketserver.py", "smtplib.py", "ftplib.py", "imaplib.py", "poplib.py"),
        ("internet", "protocol", "http", "urllib", "rpc", "xmlrpc", "wsgi", "socketserver", "smtp", "ftp", "imap", "poplib"),
    ),
)
_LIBRARY_NAMES = ("numpy", "scipy", "scikit", "sklearn", "jax", "jnp", "flax", "optax")
# Every topic's words are taken out of every passage: were only its own, the gaps would tell the label.
_GIVEAWAYS = tuple(sorted({word for topic in TOPICS for word in topic.giveaways} | set(_LIBRARY_NAMES)))


class TooFewTopics(ValueError):
    """The packages that the classification task is made of are not installed."""


class Document(NamedTuple):
    """A docstring or a topic page, without its indentation."""

    module: str  # "scipy/stats/_morestats.py", "asyncio/events.py"
    name: str  # of the documented object: "Class.method"; "" for the module itself
    text: str


class Passage(NamedTuple):
    """An example of the classification task."""

    text: str
    label: str
    source: str  # "scipy/stats/_continuous_distns.py:norm_gen"; for messages to people


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
        missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
        raise TooFewTopics(
            f"the documentation installed here makes {len(corpus.labels)} topics ({', '.join(corpus.labels)}), and "
            f"the task needs {MIN_TOPICS}; not installed: {', '.join(missing) or 'parts of the standard library'}"
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
            for path in _python_files(folder):
                for document in documents_of(path, prefix + path.relative_to(folder).as_posix()):
                    first.setdefault(document.text, document)
        self.documents = tuple(first.values())
        self.split_of_module: dict[str, Split] = {}
        self._passages = self._split(self._unambiguous_passages())
        counts = Counter((passage.label, split) for split, of_split in self._passages.items() for passage in of_split)
        # A label that cannot be learnt, chosen for or tested is not one: a package that is not here has none of them.
        self.labels = [topic.label for topic in TOPICS if all(counts[topic.label, split] for split in _SPLITS)]

    def _unambiguous_passages(self) -> dict[str, dict[str, list[Passage]]]:
        """The passages of each module of each label, but none whose text occurs under two labels."""
        passages: dict[str, dict[str, list[Passage]]] = defaultdict(lambda: defaultdict(list))
        labels_of_text: dict[str, set[str]] = defaultdict(set)
        for document in self.documents:
            label = label_of(document.module)
            if label is not None:
                source = f"{document.module}:{document.name}" if document.name else document.module
                of_module = passages[label][document.module]
                for text in passages_of(document):
                    of_module.append(Passage(text, label, source))
                    labels_of_text[_words(text)].add(label)
        return {
            label: {
                module: [passage for passage in of_module if len(labels_of_text[_words(passage.text)]) == 1]
                for module, of_module in modules.items()
            }
            for label, modules in passages.items()
        }

    def _split(self, passages: Mapping[str, Mapping[str, list[Passage]]]) -> dict[Split, list[Passage]]:
        """The passages of each split, none repeated; fills `split_of_module`."""
        for modules in passages.values():
            self.split_of_module |= deal({module: len(of_module) for module, of_module in modules.items()})
        for document in self.documents:
            if document.module not in self.split_of_module:
                self.split_of_module[document.module] = (
                    "dev" if _uniform(document.module) < _UNLABELLED_DEV else "train"
                )
        everything = [
            passage for modules in passages.values() for of_module in modules.values() for passage in of_module
        ]
        seen: set[str] = set()
        split_passages: dict[Split, list[Passage]] = {split: [] for split in _SPLITS}
        # Held-out splits come first, so that it is training that goes without a text that both have.
        for split in reversed(_SPLITS):
            for passage in everything:
                words = _words(passage.text)
                if self.split_of_module[passage.source.partition(":")[0]] == split and words not in seen:
                    seen.add(words)
                    split_passages[split].append(passage)
        return split_passages

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
        """The words of each telling sentence of the modules in dev and test."""
        return frozenset(
            words
            for document in self.documents
            if self.split_of_module[document.module] != "train"
            for paragraph in paragraphs(document.text)
            for sentence in sentences(paragraph)
            if (words := _words(sentence)).count(" ") >= _TELLING_WORDS - 1
        )


def label_of(module: str) -> str | None:
    """The label of the topic that a module belongs to, None if to none."""
    return next((topic.label for topic in TOPICS if module.startswith(topic.paths)), None)


def deal(sizes: Mapping[str, int]) -> dict[str, Split]:
    """Gives each module of one topic to a split, by its number of passages and the hash of its path.

    In the order of their hashes, modules go to test, or else to dev, while these have room for all of their passages,
    and to training when neither has. A large module is thus in training, and dev and test are of several modules.
    """
    room: dict[Split, float] = dict.fromkeys(("test", "dev"), _HELD_OUT * sum(sizes.values()))
    splits: dict[str, Split] = {}
    for module in sorted(sizes, key=_uniform):
        size = max(sizes[module], 1)
        roomier = max(room, key=lambda split: room[split])
        splits[module] = roomier if size <= room[roomier] else "train"
        if splits[module] == roomier:
            room[roomier] -= size
    return splits


def _python_files(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, in an order that does not depend on the file system."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield path
        elif path.is_dir() and not _SKIPPED_FOLDERS.fullmatch(path.name):
            yield from _python_files(path)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documents_of(path: Path, module: str) -> Iterator[Document]:
    """The docstrings of a Python file in their order, and documentation that the file holds as other strings.

    Raises:
      SyntaxError: the file is not of this version of Python; the message names it.
    """
    source = path.read_text(encoding="utf-8", errors="replace")
    if '"""' not in source and "'''" not in source and module != _TOPIC_PAGES:
        return  # a fifth of all files, spared the parser
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in other people's strings
        stack: list[tuple[ast.AST, str]] = [(ast.parse(source, str(path)), "")]
    while stack:
        node, name = stack.pop()
        if isinstance(node, _DOCUMENTED):
            if not isinstance(node, ast.Module):
                name = f"{name}.{node.name}" if name else node.name
            docstring = ast.get_docstring(node)
            if docstring:
                yield Document(module, name, docstring)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _attached_documents(node.value, module)
        elif isinstance(node, ast.Assign) and module == _TOPIC_PAGES:
            for topic, page in ast.literal_eval(node.value).items():
                yield Document(module, topic, inspect.cleandoc(page))
        if isinstance(node, (*_DOCUMENTED, ast.If, ast.Try)):
            stack.extend((child, name) for child in reversed(node.body))


def _attached_documents(call: ast.Call, module: str) -> Iterator[Document]:
    """What `add_newdoc(module, "name", ("method", "docstring"))` says about an object that is written in C."""
    if isinstance(call.func, ast.Name) and call.func.id.startswith("add_newdoc"):
        strings = [
            node.value for node in ast.walk(call) if isinstance(node, ast.Constant) if isinstance(node.value, str)
        ]
        names = [string for string in strings if string.isidentifier()]
        for string in strings:
            if " " in string.strip():
                yield Document(module, ".".join(names), inspect.cleandoc(string))


_UNDERLINE = re.compile(r"\s*([-=~^*#\"'+])\1{2,}\s*$")
_PARAMETER = re.compile(r"\*{0,2}\w+(, \*{0,2}\w+)* : ")  # "axis : int, optional", the description below it
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(])")


def paragraphs(text: str) -> list[str]:
    """The paragraphs, headings and items of a docstring, each on one line; a change of indentation starts a new one."""
    found: list[str] = []
    lines: list[str] = []
    indent = 0
    for line in [*text.splitlines(), ""]:
        stripped = line.lstrip()
        blank = not stripped or _UNDERLINE.match(line)
        if lines and (blank or len(line) - len(stripped) != indent):
            # The second line of "- an item" or of "name: what it is for" is indented; that of "name : type" is other text.
            hangs = len(lines) == 1 and len(lines[0].split()) > 3 and not _PARAMETER.match(lines[0])
            if blank or len(line) - len(stripped) < indent or not hangs:
                found.append(" ".join(" ".join(lines).split()))
                lines = []
        if not blank:
            lines.append(stripped)
            indent = len(line) - len(stripped)
    return found


def sentences(paragraph: str) -> list[str]:
    """A paragraph cut where a full stop, question or exclamation mark is followed by a capital or a quotation."""
    return _SENTENCE_END.split(paragraph)


_FUNCTION_WORD = re.compile(
    r"an?|all|and|any|are|as|at|be|but|by|can|do|does|each|else|for|from|had|has|have|if|in|into|is|its?|may|must|no|not"
    r"|of|on|one|only|or|other|shall|should|than|that|the|their|then|these|this|those|to|used|was|when|where|whether"
    r"|which|while|will|with"
)


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is English sentences, rather than code, a table, a formula, a list of names or a reference.

    A fifth of its words must be function words (in running English it is two fifths), seven tenths plain words.
    """
    if ">>>" in paragraph or "://" in paragraph or paragraph.startswith(".."):
        return False
    words = [word.strip(".,;:!?()[]\"'`*").lower() for word in paragraph.split()]
    plain = sum(word.replace("-", "").replace("'", "").isalpha() for word in words)
    return plain >= 0.7 * len(words) and sum(_FUNCTION_WORD.fullmatch(word) is not None for word in words) >= 0.2 * len(words)


def passages_of(document: Document) -> Iterator[str]:
    """Runs of paragraphs of prose, as few as make `MIN_WORDS`; sentences instead where a paragraph is too long.

    A run goes on over the "name : type" of a parameter, from one description to the next, and ends at anything else.
    """
    own_names = {part.strip("_").lower() for part in document.module.removesuffix(".py").split("/")}
    run: list[str] = []
    for paragraph in paragraphs(document.text):
        if not is_prose(paragraph):
            if not _PARAMETER.match(paragraph):
                run = []
            continue
        for piece in [paragraph] if len(paragraph.split()) <= MAX_WORDS else sentences(paragraph):
            run += conceal(piece, own_names).split()
            if len(run) > MAX_WORDS:
                run = []
            elif len(run) >= MIN_WORDS:
                yield " ".join(run)
                run = []


_CROSS_REFERENCE = re.compile(r":[a-z][\w:-]*:`[^`]*`|`[^`]*<[^`]*>`_*|\[\w+\]_")  # :func:`~a.b`, `text <link>`_, [1]_
_DOTTED_NAME = re.compile(r"\b[^\W\d]\w+(\.\w+)+")  # not "e.g."
_WORD = re.compile(r"\w+(?:-\w+)*")
_WORD_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of camelCase, snake_case, com-pounds
_EMPTY = re.compile(r"\(\s*\)|\"\s*\"|'\s*'")
_GAP = re.compile(r"\s+(?=[.,;:)])|(?<=\()\s+")


def conceal(text: str, own_names: Iterable[str] = ()) -> str:
    """The text without cross-references, dotted names, `own_names` (whole words) and what names any topic or library."""
    for pattern in (_CROSS_REFERENCE, _DOTTED_NAME):
        text = pattern.sub(" ", text)
    text = _WORD.sub(
        lambda match: " " if match[0].strip("_").lower() in own_names or gives_away(match[0]) else match[0],
        text.replace("`", " "),
    )
    return _GAP.sub("", _EMPTY.sub(" ", text))


@functools.cache
def gives_away(word: str) -> bool:
    """Whether a word, or a part of it (`MultiMetricScorer`, `linear_model`), begins like a name of a topic or library."""
    return any(part.lower().startswith(_GIVEAWAYS) for part in (word, *_WORD_PART.findall(word)))


def _words(text: str) -> str:
    """What two texts must share to count as the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _uniform(text: str) -> float:
    """A number in [0, 1) that is always the same for a text (Python's `hash` is not) and as good as random."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _check(split: str) -> None:
    if split not in _SPLITS:
        raise ValueError(f"the splits are {', '.join(_SPLITS)}, not {split!r}")
