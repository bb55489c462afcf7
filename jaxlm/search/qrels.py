"""Relevance judgements, and how good a search is by them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxlm.data import files
from jaxlm.errors import UserError
from jaxlm.ranking_metrics import Ranking, mean_metrics, ranked

Qrels = dict[str, dict[str, float]]
"""The grade of each judged document, by query and document id."""


def read_qrels(path: Path) -> Qrels:
    """Reads judgements: TREC's four columns (query, iteration, document, grade), or three (query, document, grade), as
    BEIR has them, with or without a header line; parted by tabs, or else by spaces; plain, .gz or .xz.

    Raises:
      UserError: the file or a line cannot be read, or a document is judged twice with different grades.
    """
    judgements: Qrels = {}
    width = 0
    for number, line in files.lines(path):
        place = f"{path}, line {number}"
        if line is None:
            raise UserError(f"{place}: not UTF-8{files.OTHER_ENCODING}")
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        width = width or len(cells)
        if width not in (3, 4) or len(cells) != width:
            raise UserError(f"{place}: {len(cells)} columns; query, document and grade are meant, or TREC's four")
        query, document = cells[0], cells[-2]
        try:
            grade = float(cells[-1])
        except ValueError:
            if number == 1:
                continue  # the header
            raise UserError(f"{place}: the grade {cells[-1]!r} is no number") from None
        if not math.isfinite(grade):
            raise UserError(f"{place}: the grade {cells[-1]!r} is no finite number")
        if not query or not document:
            raise UserError(f"{place}: an id is empty")
        if judgements.setdefault(query, {}).setdefault(document, grade) != grade:
            raise UserError(f"{place}: document {document} has two different grades for query {query}")
    if not judgements:
        raise UserError(f"{path}: no judgements")
    return judgements


def ranking_of(results: Sequence[tuple[str, float]], grades: Mapping[str, float]) -> Ranking:
    """What a search found for a query, as `trec_eval` sees it: by score, and of equal scores the larger id first.

    Args:
      results: the (document id, score) found.
      grades: by document id.
    """
    order = ranked(np.array([score for _, score in results]), [document for document, _ in results])
    found = np.array([grades.get(results[index][0], 0.0) for index in order], np.float64)
    # Behind the last document that somebody judged nothing counts: without it, a run takes no room to speak of.
    return Ranking(np.trim_zeros(found, "b"), np.array(list(grades.values()), np.float64))


def metrics_of_run(rankings: Sequence[Ranking | None], recall_at: int) -> dict[str, float]:
    """`mean_metrics` of what a search found, as trec_eval takes the mean: queries that nobody judged (None) are left
    out, and counted; those for which nothing is relevant count as 0.

    Args:
      recall_at: K of the recall.
    """
    judged = [ranking for ranking in rankings if ranking is not None]
    means = mean_metrics(judged, recall_at)
    share = means.pop("queries") / max(len(judged), 1)
    del means["queries_left_out"]
    means = {name: value * share for name, value in means.items()}
    return means | {"queries": len(judged), "queries_left_out": len(rankings) - len(judged)}
