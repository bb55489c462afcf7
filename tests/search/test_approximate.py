"""The graph of an index finds what exact search finds, and is never a wrong one."""

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxlm.console import Console
from jaxlm.errors import UserError
from jaxlm.parallel.mesh import make_mesh
from jaxlm.search.approximate import ApproximateSearch
from jaxlm.search.exact import ExactSearch
from jaxlm.search.index import normalised

pytest.importorskip("faiss")


def opened(directory: Path, vectors: np.ndarray) -> tuple[Any, ExactSearch]:
    """An index as far as its graph is concerned, and exact search of it."""

    class Stand(SimpleNamespace):
        def __len__(self) -> int:
            return len(vectors)

    return Stand(directory=directory, vectors=vectors), ExactSearch(vectors, make_mesh(1))


def drawn(count: int, dimension: int, seed: int) -> np.ndarray:
    return normalised(np.random.default_rng(seed).normal(size=(count, dimension)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_it_finds_nearly_all_that_exact_search_finds(tmp_path: Path, dtype: type) -> None:
    index, exact = opened(tmp_path, drawn(3000, 16, 0).astype(dtype))
    stream = io.StringIO()
    search = ApproximateSearch(index, exact, Console(stream))
    queries = drawn(50, 16, 1)
    found, nearest = search(queries, 10), exact(queries, 10)
    shares = [
        len(set(a) & set(b)) / 10 for a, b in zip(found.documents.tolist(), nearest.documents.tolist(), strict=True)
    ]
    assert np.mean(shares) > 0.97
    np.testing.assert_allclose(found.scores[:, 0], nearest.scores[:, 0], atol=1e-3)
    assert (np.diff(found.scores) <= 0).all()
    said = re.search(r"the graph finds ([\d.]+)% of the 10 nearest\n", stream.getvalue())
    assert said is not None
    assert 97 < float(said[1]) <= 100


def test_the_graph_is_made_once_and_read_after(tmp_path: Path) -> None:
    index, exact = opened(tmp_path, drawn(200, 8, 2))
    first = ApproximateSearch(index, exact, Console(io.StringIO()))
    assert [path.name for path in tmp_path.iterdir()] == ["graph.faiss"]
    stream = io.StringIO()
    again = ApproximateSearch(index, exact, Console(stream))
    queries = drawn(5, 8, 3)
    np.testing.assert_array_equal(first(queries, 7).documents, again(queries, 7).documents)
    assert stream.getvalue() == ""


def test_more_than_there_are_is_all_there_are(tmp_path: Path) -> None:
    index, exact = opened(tmp_path, drawn(5, 8, 4))
    found = ApproximateSearch(index, exact, Console(io.StringIO()))(drawn(2, 8, 5), 40)
    assert [sorted(row) for row in found.documents.tolist()] == [[0, 1, 2, 3, 4]] * 2


def test_a_graph_that_cannot_be_written_answers_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = drawn(20, 8, 7)
    index, exact = opened(tmp_path / "gone", vectors)  # root writes where it may not, but nowhere that there is not
    with caplog.at_level(logging.WARNING, "jaxlm"):
        search = ApproximateSearch(index, exact, Console(io.StringIO()))
    assert search(vectors[:3], 1).documents.tolist() == [[0], [1], [2]]
    assert "graph.faiss cannot be written, so that the next search makes the graph again: [Errno 2]" in caplog.text


def test_a_graph_that_is_damaged_or_of_other_vectors_is_named(tmp_path: Path) -> None:
    index, exact = opened(tmp_path, drawn(20, 8, 6))
    ApproximateSearch(index, exact, Console(io.StringIO()))
    other, _ = opened(tmp_path, drawn(21, 8, 6))
    with pytest.raises(UserError, match=r"graph.faiss is damaged \(it holds \(20, 8\)"):
        ApproximateSearch(other, exact, Console(io.StringIO()))
    (tmp_path / "graph.faiss").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"graph.faiss is damaged .*remove it"):
        ApproximateSearch(index, exact, Console(io.StringIO()))
