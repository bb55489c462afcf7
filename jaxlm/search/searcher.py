"""From queries to answers: the nearest documents of an index, and in which order a cross-encoder puts them."""

from collections.abc import Callable, Sequence
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

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The best `k` documents of each query, best first."""
        if not queries:
            return []
        vectors = normalised(self._embed([self._index.plan.query_prompt + query for query in queries]))
        dimension = self._index.vectors.shape[1]
        if vectors.shape[1] != dimension:
            raise UserError(f"the model's vectors have {vectors.shape[1]} dimensions, those of the index {dimension}")
        best = self._search(vectors, k if self._rerank is None else self._depth)
        hits = [
            [
                Hit(self._index.document(number), float(score), float(score))
                for score, number in zip(*row, strict=True)
                if number >= 0
            ]
            for row in zip(best.scores, best.documents, strict=True)
        ]
        if self._rerank is None:
            return hits
        asked = [query for query, row in zip(queries, hits, strict=True) for _ in row]
        scores = iter(self._rerank(asked, [whole_text(hit.document) for row in hits for hit in row]).tolist())
        read = ([hit._replace(score=next(scores)) for hit in row] for row in hits)
        return [sorted(row, key=lambda hit: -hit.score)[:k] for row in read]


def cross_encoder(predictor: Predictor, name: str) -> Score:
    """A model with one output for a pair of texts, as `Searcher` uses it.

    Raises:
      UserError: the model serves another task.
    """
    if not isinstance(predictor.task, Ranking | Regression):
        raise UserError(
            f"--rerank {name} is a model of task {predictor.task.name}; one that scores pairs of texts is meant, such "
            "as task ranking trains"
        )

    def score(queries: Sequence[str], passages: Sequence[str]) -> np.ndarray:
        table = Table(
            "--rerank", list(queries), list(passages), None, [f"pair {n}" for n in range(1, 1 + len(queries))]
        )
        return np.array([prediction["score"] for prediction in predictor.predict(table)])

    return score
