"""Approximate search through a graph of neighbours, for collections that take too long to read for every query.

The graph is a hierarchical navigable small world (Malkov and Yashunin 2018, arXiv:1603.09320), by faiss. A query meets
a few thousand documents, however large the collection is; what it misses is said when the graph is made.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.console import Console
from jaxlm.errors import UserError
from jaxlm.search.exact import Best, ExactSearch
from jaxlm.search.index import Index

log = logging.getLogger("jaxlm")

_FILE = "graph.faiss"
_NEIGHBOURS = 32  # edges of a document, twice as many in the lowest layer: 256 bytes a document
_BUILD_EFFORT = 100  # documents that are kept in view while edges are chosen
_EFFORT = 128  # and while a query is answered, or twice as many as it asks for
_PART = 65536  # documents at a time
_SAMPLE, _SAMPLE_K = 256, 10


class ApproximateSearch:
    """Searches the vectors of an index by its graph, which is made first where there is none yet.

    It lies in the index's directory, and goes with it when the index is made anew; where it cannot be written, it
    serves this once, and that is said. All of it is read into memory, vectors too.

    Args:
      exact: search of the same vectors, which the graph's answers are compared with once, when it is made.

    Raises:
      UserError: the graph is damaged.
    """

    def __init__(self, index: Index, exact: ExactSearch, console: Console):
        import faiss

        path = index.directory / _FILE
        if not path.exists():
            self._graph = _build(index, console)
            _write(self._graph, path)
            share = self._recall(index, exact)
            console.say(f"for documents of its own as queries, the graph finds {share:.1%} of the {_SAMPLE_K} nearest")
            return
        try:
            self._graph = faiss.read_index(str(path))
        except RuntimeError as error:
            raise _damaged(path, str(error).splitlines()[0]) from None
        found, expected = (self._graph.ntotal, self._graph.d), index.vectors.shape
        if found != expected:
            raise _damaged(path, f"it holds {found} vectors and dimensions, not {expected}")

    def __call__(self, queries: np.ndarray, k: int) -> Best:
        """As `ExactSearch`; places for which nothing was found have score -inf and document -1."""
        import faiss

        k = min(k, self._graph.ntotal)
        effort = faiss.SearchParametersHNSW(efSearch=max(_EFFORT, 2 * k))
        scores, documents = self._graph.search(np.ascontiguousarray(queries, np.float32), k, params=effort)
        scores = np.where(documents < 0, -np.inf, scores)
        order = np.lexsort((documents, -scores))
        return Best(np.take_along_axis(scores, order, 1), np.take_along_axis(documents, order, 1).astype(np.int32))

    def _recall(self, index: Index, exact: ExactSearch) -> float:
        """The share that it finds of the nearest documents to some documents."""
        asked = np.linspace(0, len(index) - 1, min(_SAMPLE, len(index))).astype(int)
        queries = index.vectors[asked].astype(np.float32)
        found, nearest = (search(queries, _SAMPLE_K) for search in (self, exact))
        least = nearest.scores[:, -1:] - 1e-5  # by score: documents that are equal stand for one another
        return float((found.scores >= least).mean())


def _build(index: Index, console: Console) -> Any:
    import faiss

    documents, dimension = index.vectors.shape
    if index.vectors.dtype == np.float16:
        graph = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_fp16, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    else:
        graph = faiss.IndexHNSWFlat(dimension, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _BUILD_EFFORT
    graph.is_trained = True  # float16 has nothing to learn
    starts = range(0, documents, _PART)
    for number, start in enumerate(starts, 1):
        with console.phase(f"connecting documents, part {number} of {len(starts)}"):
            graph.add(np.ascontiguousarray(index.vectors[start : start + _PART], np.float32))
    return graph


def _write(graph: Any, path: Path) -> None:
    import faiss

    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            faiss.write_index(graph, f"{folder}/{path.name}")
            os.replace(f"{folder}/{path.name}", path)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        log.warning("%s cannot be written, so that the next search makes the graph again: %s", path, reason)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}); remove it, and it is made again")
