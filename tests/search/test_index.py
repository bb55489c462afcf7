import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlm.config import DataSettings
from jaxlm.console import Console
from jaxlm.errors import UserError
from jaxlm.parallel.mesh import make_mesh
from jaxlm.search.collection import DOCUMENTS, Entry, Reader
from jaxlm.search.exact import ExactSearch
from jaxlm.search.index import Index, Plan, build, note, sha256_of_files, sha256_of_model, state_of
from jaxlm.search.searcher import Searcher

TEXTS = [f"text {number} {'ab' * (number % 5)}" for number in range(23)]


def embed(texts: Sequence[str]) -> np.ndarray:
    """A stand-in for a model: the same text always has the same vector, of some length."""
    return np.array([np.random.default_rng(list(text.encode())).normal(size=4) for text in texts], np.float32)


class Counting:
    """`embed` that notes what it was asked, and stops after so many calls."""

    def __init__(self, calls: int | None = None):
        self.asked: list[list[str]] = []
        self._calls = calls

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if self._calls is not None and len(self.asked) == self._calls:
            raise KeyboardInterrupt
        self.asked.append(list(texts))
        return embed(texts)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "documents.tsv"
    path.write_text("".join(f"d{number}\t{text}\n" for number, text in enumerate(TEXTS)))
    return path


@pytest.fixture
def make(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Makes the index in `tmp_path / "index"` in parts of 5, and returns what it was that it lacked."""
    monkeypatch.setattr("jaxlm.search.index._PART", 5)

    def run(
        model: Callable[[Sequence[str]], np.ndarray] = embed, stream: io.StringIO | None = None, /, **changes: Any
    ) -> str | None:
        plan = Plan("model", "0" * 64, (str(file),), sha256_of_files([file]))
        plan = dataclasses.replace(plan, **changes)
        if (reason := state_of(tmp_path / "index", plan)) is not None:
            reader = Reader([file], DOCUMENTS, DataSettings())
            build(tmp_path / "index", plan, reader, lambda: model, Console(stream or io.StringIO()))
        else:
            note(tmp_path / "index", plan)
        return reason

    return run


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_index_holds_documents_and_their_vectors(
    tmp_path: Path, make: Callable[..., str | None], dtype: str
) -> None:
    assert make(dtype=dtype, document_prompt="passage: ") == "there is none yet"
    index = Index(tmp_path / "index")
    assert [index.document(number) for number in (22, 0, 5)] == [
        Entry(f"d{number}", "", TEXTS[number].strip()) for number in (22, 0, 5)
    ]
    assert list(index.ids()) == [f"d{number}" for number in range(23)]
    expected = embed([f"passage: {text.strip()}" for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(index.vectors, expected, atol=1e-6 if dtype == "float32" else 1e-3)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "documents.jsonl", "manifest.json", "offsets.npy", "vectors.npy",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents.tsv", "index"]


def test_the_same_again_is_up_to_date_and_a_change_is_noticed(
    tmp_path: Path, file: Path, make: Callable[..., str | None]
) -> None:
    make()
    again = Counting()
    assert make(again) is None
    assert again.asked == []
    assert make(model_sha256="1" * 64) == "the model has changed"
    assert make(model_sha256="1" * 64, dtype="float16") == "the type of the vectors has changed"
    assert make(model_sha256="1" * 64, dtype="float16", document_prompt="d: ") == "the prompt has changed"
    bfloat16 = {"model_sha256": "1" * 64, "dtype": "float16", "document_prompt": "d: ", "products": "bfloat16"}
    assert make(**bfloat16) == "products were computed in float32, and are in bfloat16 now"
    file.write_text("d99\tanother text\n")
    assert make() == "the model has changed"
    file.write_text("d98\tyet another text\n")
    assert make() == "the documents have changed"
    assert list(Index(tmp_path / "index").ids()) == ["d98"]


def test_what_no_vector_depends_on_is_noted_without_new_vectors(
    tmp_path: Path, make: Callable[..., str | None]
) -> None:
    make()
    again = Counting()
    assert make(again, model="/moved", sources=("/abs/documents.tsv",), query_prompt="query: ") is None
    assert again.asked == []
    plan = Index(tmp_path / "index").plan
    assert (plan.model, plan.sources, plan.query_prompt) == ("/moved", ("/abs/documents.tsv",), "query: ")


def test_what_was_stopped_goes_on_from_its_last_part(tmp_path: Path, make: Callable[..., str | None]) -> None:
    make()
    whole = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    shutil.rmtree(tmp_path / "index")
    first, second = Counting(calls=3), Counting()
    with pytest.raises(KeyboardInterrupt):
        make(first)
    assert not (tmp_path / "index").exists()
    make(second)
    assert [len(texts) for texts in first.asked] == [5, 5, 5]
    assert [len(texts) for texts in second.asked] == [5, 3]
    assert {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()} == whole


def test_what_was_stopped_goes_on_where_model_and_documents_have_moved(
    tmp_path: Path, make: Callable[..., str | None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(Counting(calls=3))
    second = Counting()
    make(second, model="/moved", sources=("/abs/documents.tsv",), query_prompt="query: ")
    assert len(second.asked) == 2
    assert Index(tmp_path / "index").plan.model == "/moved"


def test_an_error_on_the_way_keeps_the_parts_that_are_finished(tmp_path: Path, make: Callable[..., str | None]) -> None:
    def fails(texts: Sequence[str]) -> np.ndarray:
        raise UserError("mesh.tensor does not divide the heads")

    with pytest.raises(KeyboardInterrupt):
        make(Counting(calls=3))
    with pytest.raises(UserError, match="divide the heads"):
        make(fails)
    last = Counting()
    make(last)
    assert len(last.asked) == 2


def test_what_was_stopped_starts_anew_where_its_plan_has_changed(
    tmp_path: Path, make: Callable[..., str | None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(Counting(calls=3))
    second, said = Counting(), io.StringIO()
    make(second, said, products="bfloat16")
    assert len(second.asked) == 5
    assert ".index.partial is thrown away: products were computed in float32, and are in bfloat16" in said.getvalue()


def test_errors_leave_nothing_behind(tmp_path: Path, file: Path, make: Callable[..., str | None]) -> None:
    def fails(texts: Sequence[str]) -> np.ndarray:
        raise UserError("the model is no good")

    with pytest.raises(UserError, match="no good"):
        make(fails)
    file.write_text("d1\tone\nd1\ttwo\n")
    with pytest.raises(UserError, match="line 2: an id for the second time"):
        make()
    assert [path.name for path in tmp_path.iterdir()] == ["documents.tsv"]


def test_directories_above_an_index_are_made_and_of_a_failure_none_is_left(tmp_path: Path, file: Path) -> None:
    plan = Plan("model", "0" * 64, (str(file),), sha256_of_files([file]))

    def make(load: Callable[[], Callable[[Sequence[str]], np.ndarray]], directory: Path | None = None) -> None:
        reader = Reader([file], DOCUMENTS, DataSettings())
        build(directory or tmp_path / "runs" / "a" / "index", plan, reader, load, Console(io.StringIO()))

    def fails() -> Any:
        raise UserError("the model is no good")

    with pytest.raises(UserError, match="no good"):
        make(fails)
    assert [path.name for path in tmp_path.iterdir()] == ["documents.tsv"]
    make(lambda: embed)
    assert len(Index(tmp_path / "runs" / "a" / "index")) == len(TEXTS)
    with pytest.raises(UserError, match="--index / is where a disk is mounted"):
        make(fails, Path("/"))


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _manifest(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda index: (index / "manifest.json").unlink(), "holds no index; make one"),
    "a manifest cut short": (lambda index: _cut(index / "manifest.json", 50), "manifest.json: JSONDecodeError"),
    "a manifest without a plan": (lambda index: (index / "manifest.json").write_text('{"format": 2}'), "KeyError"),
    "a manifest that is a list": (lambda index: (index / "manifest.json").write_text("[1]"), "TypeError"),
    "an older format": (lambda index: _manifest(index, format=1), "has format 1; this jaxlm reads 2: remove it"),
    "another count": (lambda index: _manifest(index, documents=24), "not float32 (24, 4)"),
    "another dimension": (lambda index: _manifest(index, dimension=5), "not float32 (23, 5)"),
    "no vectors": (lambda index: (index / "vectors.npy").unlink(), "No such file"),
    "vectors cut short": (lambda index: _cut(index / "vectors.npy", 200), "is damaged"),
    "vectors of another type": (
        lambda index: np.save(index / "vectors.npy", np.zeros((23, 4))), "vectors.npy holds float64 (23, 4)",
    ),
    "no documents": (lambda index: (index / "documents.jsonl").unlink(), "No such file"),
    "documents cut short": (lambda index: _cut(index / "documents.jsonl", 200), "not as long as offsets.npy says"),
    "no offsets": (lambda index: (index / "offsets.npy").unlink(), "No such file"),
    "offsets of other documents": (lambda index: np.save(index / "offsets.npy", np.arange(5)), "offsets.npy says"),
}  # fmt: skip


def test_a_damaged_index_is_refused_in_one_line(tmp_path: Path, make: Callable[..., str | None]) -> None:
    make()
    for kind, (damage, message) in DAMAGES.items():
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "index", copy)
        damage(copy)
        with pytest.raises(UserError, match=r"^[^\n]*copy[^\n]*$") as stop:
            Index(copy)
        assert message in str(stop.value), kind
        shutil.rmtree(copy)


def test_a_directory_that_is_no_index_is_left_alone(tmp_path: Path, make: Callable[..., str | None]) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match="is not empty and holds no index"):
        make()
    assert (tmp_path / "index" / "thesis.txt").read_text() == "ten years of work"


def test_a_models_hash_is_of_what_it_computes_with(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    assert sha256_of_model(copy) == sha256_of_model(tiny_model)
    for name in ("README.md", "data_config.json", "metrics.json", "pytorch_model.bin", "index/manifest.json"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("{}")
        assert sha256_of_model(copy) == sha256_of_model(tiny_model), name
    for name in ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "added_tokens.json",
                 "modules.json", "1_Pooling/config.json", "model.safetensors"):  # fmt: skip
        before, path = sha256_of_model(copy), copy / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((path.read_bytes() if path.exists() else b"{}") + b"\n")
        assert sha256_of_model(copy) != before, name


def test_a_models_hash_is_of_all_shards_and_of_heads_in_directories_of_their_own(
    tiny_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    shutil.copytree(tiny_model, copy / "topics")
    shape = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(shape | {"jaxlm": {"heads": ["topics"]}}))
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"bert.x": "model-00001-of-00001.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in (copy / "topics" / "model.safetensors", copy / "model-00001-of-00001.safetensors"):
        before = sha256_of_model(copy)
        path.write_bytes(path.read_bytes() + b"\n")
        assert sha256_of_model(copy) != before, path


def test_answers_are_the_nearest_documents_and_reranking_reads_the_nearest_few(
    tmp_path: Path, make: Callable[..., str | None]
) -> None:
    make(query_prompt="text ")
    index = Index(tmp_path / "index")
    search = ExactSearch(index.vectors, make_mesh(1))
    answers = list(Searcher(index, embed, search)(["7 abab", "3 ababab"], 3))
    assert [row[0].document.id for row in answers] == ["d7", "d3"]
    assert [row[0].score for row in answers] == pytest.approx([1, 1])
    assert all(row[0].score >= row[1].score >= row[2].score for row in answers)
    read: list[tuple[str, str]] = []

    def by_length(queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
        read.extend(zip(queries, passages, strict=True))
        return np.array([len(passage) for passage in passages], float)

    nearest = list(Searcher(index, embed, search)(["7 abab", "3 ababab"], 6))
    reranked = list(Searcher(index, embed, search, rerank=by_length, depth=6)(["7 abab", "3 ababab"], 2))
    assert read == [(query, hit.document.text) for query, row in zip(["7 abab", "3 ababab"], nearest, strict=True)
                    for hit in row]  # fmt: skip
    for row, candidates in zip(reranked, nearest, strict=True):
        expected = sorted(candidates, key=lambda hit: -len(hit.document.text))[:2]
        assert [hit.document.id for hit in row] == [hit.document.id for hit in expected]
        assert [hit.cosine for hit in row] == [hit.cosine for hit in expected]
        assert [hit.score for hit in row] == [len(hit.document.text) for hit in row]
    with pytest.raises(UserError, match="have 3 dimensions, those of the index 4"):
        list(Searcher(index, lambda texts: np.ones((len(texts), 3), np.float32), search)(["x"], 2))


def test_answers_come_group_by_group_and_are_those_of_all_queries_at_once(
    make: Callable[..., str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    index = Index(tmp_path / "index")
    read: list[int] = []

    def by_length(queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
        read.append(len(queries))
        return np.array([len(query + passage) for query, passage in zip(queries, passages, strict=True)], float)

    searcher = Searcher(index, embed, ExactSearch(index.vectors, make_mesh(1)), rerank=by_length, depth=4)
    at_once = list(searcher(TEXTS, 3))
    assert read == [4 * 23]
    monkeypatch.setattr("jaxlm.search.searcher._QUERIES", 7)
    monkeypatch.setattr("jaxlm.search.searcher._FEWEST_PAIRS", 8)
    monkeypatch.setattr("jaxlm.search.searcher._MOST_PAIRS", 32)
    read.clear()
    answers = searcher(TEXTS, 3)
    first = next(answers)
    assert read == [4 * 2]
    assert [first, *answers] == at_once
    assert read == [4 * 2, 4 * 4, 4 * 8, 4 * 8, 4]
