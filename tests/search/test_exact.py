"""Blockwise search equals sorting the whole matrix of scores in numpy."""

from pathlib import Path

import numpy as np
import pytest

from jaxlm.parallel.mesh import make_mesh
from jaxlm.search.exact import Best, ExactSearch


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> Best:
    scores = queries.astype(np.float32) @ vectors.astype(np.float32).T
    numbers = np.broadcast_to(np.arange(len(vectors)), scores.shape)
    order = np.lexsort((numbers, -scores))[:, :k]
    return Best(np.take_along_axis(scores, order, 1), order)


def whole_numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Their products are exact, whatever the order of summation: ties are ties in every implementation."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("devices", "axes"), [(1, {}), (8, {}), (8, {"fsdp": 8}), (8, {"fsdp": 4}), (8, {"fsdp": 2, "tensor": 2})]
)
@pytest.mark.parametrize(
    ("documents", "queries", "k", "block"),
    [
        (100, 3, 5, 7),  # many blocks, and the last one not full
        (64, 1, 10, 8),  # full blocks only
        (13, 5, 40, 4),  # more asked for than there are
        (1, 2, 1, 16),
        (9, 2, 9, 16384),  # all of them; fewer than devices times rows
    ],
)
def test_the_best_are_those_of_brute_force_ties_included(
    devices: int, axes: dict[str, int], documents: int, queries: int, k: int, block: int
) -> None:
    vectors, asked = whole_numbers((documents, 6), 0), whole_numbers((queries, 6), 1)
    found = ExactSearch(vectors, make_mesh(devices, **axes), block=block)(asked, k)
    expected = brute_force(asked, vectors, k)
    assert found.documents.shape == (queries, min(k, documents))
    np.testing.assert_array_equal(found.documents, expected.documents)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_vectors_on_disk_are_searched_in_float32(tmp_path: Path, dtype: type) -> None:
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(50, 6)).astype(dtype)
    np.save(tmp_path / "vectors.npy", vectors)
    queries = draw.normal(size=(3, 6)).astype(np.float32)
    found = ExactSearch(np.load(tmp_path / "vectors.npy", mmap_mode="r"), make_mesh(8), block=7)(queries, 5)
    expected = brute_force(queries, vectors, 5)
    np.testing.assert_array_equal(found.documents, expected.documents)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_many_queries_are_answered_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxlm.search.exact._QUERIES", 4)
    vectors, asked = whole_numbers((100, 6), 0), whole_numbers((9, 6), 1)
    found = ExactSearch(vectors, make_mesh(1), block=7)(asked, 5)
    np.testing.assert_array_equal(found.documents, brute_force(asked, vectors, 5).documents)


def test_nothing_asked_is_nothing_found() -> None:
    found = ExactSearch(whole_numbers((3, 6), 0), make_mesh(1))(np.zeros((0, 6), np.float32), 2)
    assert found.documents.shape == (0, 2)
