import importlib.util
import re
import sysconfig
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from jaxlm.data import installed_docs
from jaxlm.data.docstrings import Document, documents_of, is_prose, paragraphs
from jaxlm.data.installed_docs import (
    LIBRARIES,
    MAX_WORDS,
    MIN_WORDS,
    TOPICS,
    Corpus,
    Split,
    TooFewTopics,
    conceal,
    passages_of,
    split_modules,
    topic_passages,
)

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """A part of what is installed, so that it is read in a second or two: four topics and modules outside of all."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    folders = {f"{name}/": stdlib / name for name in ("asyncio", "email", "http", "urllib", "logging", "xml", "json")}
    for library, part in (("scipy", "interpolate"), ("sklearn", "cluster")):
        spec = importlib.util.find_spec(library)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        folders[f"{library}/{part}/"] = Path(spec.submodule_search_locations[0]) / part
    return Corpus(folders)


def library(folder: Path, **docstrings: str) -> Path:
    """A folder of modules with a docstring each."""
    folder.mkdir(parents=True)
    for name, docstring in docstrings.items():
        (folder / f"{name}.py").write_text(f'"""{docstring}"""\n')
    return folder


def sentence(word: str) -> str:
    return f"This is the {word} that is to be of use to all who read it and who are in need of one more {word}."


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def test_documents_are_docstrings_with_names_in_order_and_nothing_is_run(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""Of the module."""\n'
        "raise RuntimeError\n"
        "if True:\n"
        "    class A:\n"
        '        """Of the\n\n            class."""\n'
        '        async def f(self): """Of the method."""\n'
        "def g():\n"
        '    """Of the function."""\n'
        '    def inner(): r"""Of the \\d."""\n'
        'x = """Not documentation."""\n'
    )
    assert list(documents_of(path, "lib/module.py")) == [
        Document("lib/module.py", "", "Of the module."),
        Document("lib/module.py", "A", "Of the\n\nclass."),
        Document("lib/module.py", "A.f", "Of the method."),
        Document("lib/module.py", "g", "Of the function."),
        Document("lib/module.py", "g.inner", r"Of the \d."),
    ]


def test_documents_attached_to_c_code_and_topic_pages_are_found(tmp_path):
    path = tmp_path / "docs.py"
    path.write_text('add_newdoc("numpy._core", "flatiter", ("base", """\n    The base of it.\n    """))\n')
    assert list(documents_of(path, "numpy/docs.py")) == [Document("numpy/docs.py", "flatiter.base", "The base of it.")]
    path.write_text("topics = {'if': 'The \"if\"\\n'\n 'statement.'}\n")
    assert list(documents_of(path, "pydoc_data/topics.py")) == [
        Document("pydoc_data/topics.py", "if", 'The "if"\nstatement.')
    ]


def test_a_file_that_is_not_python_is_named(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text('"""Docstring."""\nprint "2"\n')
    with pytest.raises(SyntaxError, match=r"broken\.py"):
        list(documents_of(path, "broken.py"))


def test_paragraphs_keep_items_whole_and_descriptions_apart_from_types():
    text = """Summary over
two lines.

Parameters
----------
axis : int, optional, of the array
    The axis along
    which to go.

Args:
  key: what the first line says and
    the second line too.
  other: short.
  one_more: shorter.
"""
    assert paragraphs(text) == [
        "Summary over two lines.",
        "Parameters",
        "axis : int, optional, of the array",
        "The axis along which to go.",
        "Args:",
        "key: what the first line says and the second line too.",
        "other: short.",
        "one_more: shorter.",
    ]


@pytest.mark.parametrize(
    ("paragraph", "prose"),
    [
        ("The axis along which the values are summed; if it is None, all of them are.", True),
        (">>> f(the, x)  # this is in the code of an example", False),
        ("x = np.sqrt(a ** 2 + b ** 2); y = x if a > b else 0", False),
        ("for i in [0, 1, 2, 3] if x[i] in a and x[i] == 1", False),
        ("alpha beta gamma delta epsilon zeta eta theta", False),
        ("shape (n_samples, n_features) or (n,), dtype float64", False),
        (".. [1] A. Author, The name of the book that is cited in the text, 1999.", False),
        ("See the page that is at https://example.org for more of it.", False),
    ],
)
def test_prose_is_told_from_code_lists_and_references(paragraph, prose):
    assert is_prose(paragraph) == prose


@pytest.mark.parametrize(
    ("text", "concealed"),
    [
        ("Uses scipy.stats.norm, e.g. twice.", "Uses, e.g. twice."),
        ("See :func:`~scipy.signal.lfilter` and `the guide <metric_guide>` [1]_.", "See and."),
        ("The linear_model, LinearModel and nonLinear ones", "The, and ones"),
        ("The METRICS (`metric`) of symmetric matrices", "The of symmetric matrices"),
        ("Asyncio: a scikit-learn-like loop", "a loop"),
        ("A ``rope`` of base, _base and Base; basement", "A rope of, and; basement"),
    ],
)
def test_names_of_topics_libraries_and_the_own_module_are_concealed(text, concealed):
    assert " ".join(conceal(text, frozenset({"base"})).split()) == concealed


def test_a_passage_runs_over_parameters_and_ends_at_code():
    first, second, third = (sentence(word) for word in ("rope", "knot", "sail"))
    text = f"{first}\n\nx : int\n    {second}\ny : int\n    {third}\n\n>>> f(x)\n\nToo short to be one.\n\n>>> f(y)\n"
    assert list(passages_of(Document("a.py", "f", text))) == [f"{first} {second} {third}"]
    assert list(passages_of(Document("a.py", "f", f"{first}\n\n    f(x) = y\n\n{second}"))) == [first, second]


def test_a_passage_of_a_long_paragraph_is_of_whole_sentences():
    sentences = [sentence(f"rope{i}") for i in range(8)]
    found = list(passages_of(Document("a.py", "f", " ".join(sentences))))
    assert " ".join(found) == " ".join(sentences)
    assert all(MIN_WORDS <= len(passage.split()) <= MAX_WORDS for passage in found)
    assert all(passage.endswith(".") for passage in found)


def test_modules_are_dealt_by_a_hash_that_never_changes():
    sizes = {f"email/{name}.py": 10 for name in "abcdefgh"} | {"email/large.py": 40, "email/empty.py": 0}
    splits = split_modules(sizes)
    assert splits == split_modules(dict(reversed(sizes.items())))
    assert {module: split for module, split in splits.items() if split != "train"} == {
        "email/a.py": "dev",
        "email/e.py": "test",
        "email/empty.py": "test",
        "email/f.py": "dev",
        "email/h.py": "test",
    }
    for split in ("dev", "test"):
        assert 0 < sum(sizes[module] for module in splits if splits[module] == split) <= 0.2 * sum(sizes.values())
    assert splits["email/large.py"] == "train"


def test_a_few_modules_outside_all_topics_are_for_dev():
    splits = Counter(split_modules({f"json/{i}.py": 1 for i in range(2000)}).values())
    assert 20 <= splits["dev"] <= 60
    assert splits["test"] == 0


def test_no_passage_has_a_word_that_gives_its_topic_or_library_away(corpus):
    giveaways = {topic.label: topic.giveaways for topic in TOPICS}
    passages = [passage for split in SPLITS for passage in corpus.topic_passages(split)]
    assert len(passages) > 1000
    for passage in passages:
        beginnings = tuple({*giveaways[passage.label], "scipy", "sklearn", "scikit", "numpy"})
        found = [word for word in re.findall(r"[a-z0-9]+", passage.text.lower()) if word.startswith(beginnings)]
        assert not found, passage
        own = Path(passage.module).stem.strip("_")
        assert not re.search(rf"\b{own}\b", passage.text, re.IGNORECASE), passage


def test_passages_are_of_20_to_80_words_and_every_split_has_every_label(corpus):
    assert corpus.labels == ["interpolation", "clustering", "concurrency", "email", "internet protocols"]
    for split in SPLITS:
        passages = corpus.topic_passages(split)
        assert {passage.label for passage in passages} == set(corpus.labels)
        assert all(20 <= len(passage.text.split()) <= 80 for passage in passages)


def test_splits_share_no_module_and_no_text(corpus):
    modules = [{passage.module for passage in corpus.topic_passages(split)} for split in SPLITS]
    texts = [words(passage.text) for split in SPLITS for passage in corpus.topic_passages(split)]
    assert len(set.union(*modules)) == sum(map(len, modules))
    assert len(set(texts)) == len(texts)


def test_no_sentence_that_is_held_out_is_in_the_pretraining_texts(corpus):
    def sentences_of(split: Split) -> set[str]:
        lines = [line for text in corpus.pretraining_texts(split) for line in text.split("\n")]
        found = {words(part) for line in lines for part in re.split(r"(?<=[.!?])\s+(?=[A-Z`\"(])", line)}
        return {text for text in found if len(text.split()) >= 6}

    training = sentences_of("train")
    assert len(training) > 3000
    for split in ("dev", "test"):
        held_out = sentences_of(split)
        assert len(held_out) > 500
        assert not held_out & training


def test_training_goes_without_what_is_also_held_out(tmp_path):
    modules = {f"m{i}": f"{sentence(f'rope{i}')}\n\nEnds." for i in range(12)}
    splits = Corpus({"email/": library(tmp_path / "a", **modules)}).split_of_module
    in_train, in_test = (next(m for m in modules if splits[f"email/{m}.py"] == split) for split in ("train", "test"))
    modules[in_train] = modules[in_test].replace("Ends.", "Ends otherwise.")
    corpus = Corpus({"email/": library(tmp_path / "b", **modules)})
    assert corpus.split_of_module == splits
    text = modules[in_test].split("\n")[0]
    found = [passage.source for split in SPLITS for passage in corpus.topic_passages(split) if passage.text == text]
    assert found == [f"email/{in_test}.py"]
    assert "Ends otherwise." in corpus.pretraining_texts("train")
    assert modules[in_test].replace("\n\n", "\n") in corpus.pretraining_texts("test")


def test_a_text_under_two_labels_is_a_passage_of_neither(tmp_path):
    folders = {}
    for part in ("asyncio", "email"):
        modules = {f"m{i}": sentence(f"{part[0]}rope{i}") for i in range(12)}
        folders[f"{part}/"] = library(tmp_path / part, both=f"{sentence('sail')}\n\n>>> {part}", **modules)
    corpus = Corpus(folders)
    passages = [passage for split in SPLITS for passage in corpus.topic_passages(split)]
    assert len(passages) == 24
    assert sentence("sail") not in {passage.text for passage in passages}


def test_per_class_takes_the_same_few_passages_of_each_label(corpus):
    few, more = corpus.topic_passages("train", per_class=5), corpus.topic_passages("train", per_class=20)
    assert Counter(passage.label for passage in few) == dict.fromkeys(corpus.labels, 5)
    assert set(few) < set(more)
    assert few == [passage for passage in more if passage in few]
    changes = sum(one.label != next_.label for one, next_ in pairwise(more))
    assert changes > len(more) / 2, "labels are not mixed"


def test_a_docstring_that_is_found_twice_is_one_document(tmp_path):
    folder = library(tmp_path / "a", one=sentence("rope"), two=sentence("rope"))
    assert Corpus({"json/": folder}).documents == (Document("json/one.py", "", sentence("rope")),)


def test_code_examples_are_left_out_of_the_pretraining_texts(corpus):
    assert not any(">>>" in text for split in SPLITS for text in corpus.pretraining_texts(split))


def test_too_few_topics_is_an_error_that_names_what_to_install(corpus, monkeypatch):
    monkeypatch.setattr(installed_docs, "installed_corpus", lambda: corpus)
    monkeypatch.setattr(installed_docs, "LIBRARIES", {"no_such_library": "no-such-package", "numpy": "numpy"})
    with pytest.raises(TooFewTopics, match=r"5 topics \(interpolation, .*needs 10: install no-such-package, or"):
        topic_passages("train")


def test_an_unknown_split_is_refused(corpus):
    for texts in (corpus.topic_passages, corpus.pretraining_texts):
        with pytest.raises(ValueError, match="the splits are train, dev, test, not 'validation'"):
            texts("validation")


def test_the_paths_of_all_topics_exist():
    for topic in TOPICS:
        for path in topic.paths:
            library = path.split("/")[0]
            spec = importlib.util.find_spec(library) if library in LIBRARIES else None
            assert library not in LIBRARIES or (spec and spec.origin), f"{library} is a requirement"
            folder = Path(spec.origin).parents[1] if spec and spec.origin else Path(sysconfig.get_path("stdlib"))
            assert (folder / path).exists()
