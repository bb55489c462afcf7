"""From queries to answers: the nearest documents of an index, and in which order a cross-encoder puts them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.sources import Table
from jaxlm.errors import UserError
from jaxlm.predict import Predictor
from jaxlm.search.collection import Entry
from jaxlm.search.exact import Best
from jaxlm.search.index import Embed, Index, normalised, whole_text
from jaxlm.tasks.ranking import Ranking
from jaxlm.tasks.regression import Regression

Search = Callable[[np.ndarray, int], Best]
"""Vectors of queries, and how many documents are wanted, to the nearest documents."""
Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Queries and passages, pair by pair, to scores `[pairs]`; higher is more relevant."""


_QUERIES = 1024  # that are searched for together: each time all vectors are read
# Pairs that the cross-encoder reads at once: few at first, so that answers soon come, then twice as many each time, as
# other lengths are another shape to compile.
_FEWEST_PAIRS, _MOST_PAIRS = 1 << 10, 1 << 15


class Hit(NamedTuple):
    """A document that was found."""

    document: Entry
    score: float  # the cross-encoder's where there is one, else the cosine
    cosine: float

    def record(self, rank: int, reranked: bool) -> dict[str, Any]:
        """As JSON."""
        title = {"title": self.document.title} if self.document.title else {}
        cosine = {"cosine": self.cosine} if reranked else {}
        return {"rank": rank, "id": self.document.id, "score": self.score} | cosine | title | {
            "text": self.document.text
        }  # fmt: skip


class Searcher:
    """Answers queries from an index.

    Args:
      index: opened.
      embed: the model that the index was made with.
      search: finds the nearest of the index's vectors, such as `ExactSearch`.
      rerank: a cross-encoder; None leaves the documents in the order of their cosine.
      depth: how many of the nearest documents it reads for each query, at least as many as are asked for.

    Raises:
      UserError (when called): the model's vectors are of another dimension than the index's.
    """

    def __init__(self, index: Index, embed: Embed, search: Search, *, rerank: Score | None = None, depth: int = 100):
        self._index, self._embed, self._search, self._rerank, self._depth = index, embed, search, rerank, depth

    def __call__(self, queries: Sequence[str], k: int) -> Iterator[list[Hit]]:
        """The best `k` documents of each query, best first; query by query, as they are found."""
        if self._rerank is None:
            yield from (hits for _, hits in self._nearest(queries, k))
            return
        candidates, pairs = self._nearest(queries, self._depth), _FEWEST_PAIRS
        while group := list(itertools.islice(candidates, max(1, pairs // self._depth))):
            yield from self._reranked(group, k, self._rerank)
            pairs = min(2 * pairs, _MOST_PAIRS)

    def _nearest(self, queries: Sequence[str], k: int) -> Iterator[tuple[str, list[Hit]]]:
        """Each query, and the documents of the largest cosines."""
        dimension = self._index.vectors.shape[1]
        for start in range(0, len(queries), _QUERIES):
            asked = queries[start : start + _QUERIES]
            vectors = normalised(self._embed([self._index.plan.query_prompt + query for query in asked]))
            if vectors.shape[1] != dimension:
                raise UserError(
                    f"the model's vectors have {vectors.shape[1]} dimensions, those of the index {dimension}"
                )
            best = self._search(vectors, k)
            for query, scores, numbers in zip(asked, best.scores, best.documents, strict=True):
                found = zip(scores.tolist(), numbers.tolist(), strict=True)
                yield query, [Hit(self._index.document(number), score, score) for score, number in found if number >= 0]

    def _reranked(self, group: Sequence[tuple[str, list[Hit]]], k: int, rerank: Score) -> Iterator[list[Hit]]:
        pairs = [(query, whole_text(hit.document)) for query, hits in group for hit in hits]
        scores = iter(rerank([query for query, _ in pairs], [passage for _, passage in pairs]).tolist())
        for _, hits in group:
            read = [hit._replace(score=next(scores)) for hit in hits]
            yield sorted(read, key=lambda hit: -hit.score)[:k]


class CrossEncoder:
    """A model with one output for a pair of texts, as `Searcher` uses it.

    Raises:
      UserError: the model serves another task.
    """

    def __init__(self, predictor: Predictor, name: str):
        if not isinstance(predictor.task, Ranking | Regression):
            raise UserError(
                f"--rerank {name} is a model of task {predictor.task.name}; one that scores pairs of texts is meant, "
                "such as task ranking trains"
            )
        self._predictor = predictor
        self.max_length = predictor.max_length
        self.truncated = 0  # pairs that were cut so far

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
        places = [f"pair {number}" for number in range(1, 1 + len(queries))]
        predictions, cut = self._predictor.predictions(Table("--rerank", list(queries), list(passages), None, places))
        self.truncated += cut
        return np.array([prediction["score"] for prediction in predictions])
