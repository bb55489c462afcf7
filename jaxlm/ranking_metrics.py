"""How good a ranking is: MRR, NDCG, recall and average precision, as `trec_eval` defines them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """One query: the grades of what was found, best first, and of everything that was judged, found or not."""

    found: np.ndarray  # [results], 0 for a result that nobody judged
    judged: np.ndarray  # [judgements]


def ranked(scores: np.ndarray, ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """The results of a query from best to worst, as indices `[results]`.

    Of equal scores the larger id comes first, and scores are compared as float32: `trec_eval` does so
    (https://github.com/usnistgov/trec_eval, form_res_rels.c), which keeps a system that gives everything the same
    score from being helped by the order of the file. Text ids are compared by their UTF-8 bytes.

    Args:
      scores: `[results]`.
      ids: of the results, all different; text, or numbers such as their place in the file.
    """
    scores = np.asarray(scores, np.float32)
    if not isinstance(ids, np.ndarray):
        names = sorted(range(len(ids)), key=lambda index: ids[index].encode())
        places = np.empty(len(ids), np.int64)
        places[names] = np.arange(len(ids))
        ids = places
    return np.lexsort((-ids, -scores))


def reciprocal_rank(ranking: Ranking, k: int | None = None, relevant: float = 1) -> float:
    """1 / the rank of the first result that is relevant; 0 where none is among the first `k` (None: among all)."""
    hits = np.flatnonzero(ranking.found[:k] >= relevant)
    return 1 / (1 + int(hits[0])) if len(hits) else 0.0


def ndcg(ranking: Ranking, k: int | None = None) -> float:
    """DCG of the first `k` results over that of the best possible order, with the grade itself as gain and
    1 / log2(1 + rank) as discount (Järvelin and Kekäläinen 2002, in the form of `trec_eval`). Negative grades are 0."""
    best = _dcg(np.sort(ranking.judged)[::-1][:k])
    return _dcg(ranking.found[:k]) / best if best > 0 else 0.0


def _dcg(grades: np.ndarray) -> float:
    return float((np.maximum(grades, 0) / np.log2(2 + np.arange(len(grades)))).sum())


def recall(ranking: Ranking, k: int | None = None, relevant: float = 1) -> float:
    """The share of what is relevant that is among the first `k` results."""
    return _count(ranking.found[:k], relevant) / max(_count(ranking.judged, relevant), 1)


def average_precision(ranking: Ranking, relevant: float = 1) -> float:
    """The mean, over everything that is relevant, of the precision at its rank; 0 for what was not found."""
    hits = ranking.found >= relevant
    precisions = np.cumsum(hits)[hits] / (1 + np.flatnonzero(hits))
    return float(precisions.sum()) / max(_count(ranking.judged, relevant), 1)


def _count(grades: np.ndarray, relevant: float) -> int:
    return int((grades >= relevant).sum())


def mean_metrics(rankings: Iterable[Ranking], recall_at: int = 10, relevant: float = 1) -> dict[str, float]:
    """The metrics' means over queries: `mrr`, `mrr@10`, `ndcg@10`, `recall@K` and `map`.

    Queries for which nothing is relevant have no order that is better than another: they are left out, and counted
    (`queries`, `queries_left_out`). (MRR as MS MARCO publishes it counts those as 0: multiply by the share kept.)

    Args:
      recall_at: K of the recall.
      relevant: the grade from which on a result counts as relevant (NDCG goes by the grades themselves).
    """
    every = list(rankings)
    kept = [ranking for ranking in every if (ranking.judged >= relevant).any()]

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values))) if kept else 0.0

    return {
        "mrr": mean(reciprocal_rank(ranking, None, relevant) for ranking in kept),
        "mrr@10": mean(reciprocal_rank(ranking, 10, relevant) for ranking in kept),
        "ndcg@10": mean(ndcg(ranking, 10) for ranking in kept),
        f"recall@{recall_at}": mean(recall(ranking, recall_at, relevant) for ranking in kept),
        "map": mean(average_precision(ranking, relevant) for ranking in kept),
        "queries": len(kept),
        "queries_left_out": len(every) - len(kept),
    }
