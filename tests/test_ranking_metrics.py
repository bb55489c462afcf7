"""Equal to trec_eval, by pytrec_eval's bindings to its C code."""

import numpy as np
import pytest
import pytrec_eval

from jaxlm.ranking_metrics import (
    Ranking,
    average_precision,
    mean_metrics,
    ndcg,
    ranked,
    recall,
    reciprocal_rank,
)
from jaxlm.search.qrels import metrics_of_run, ranking_of


def make_run(seed: int, *, ties: bool) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Results and judgements of 40 queries: some results unjudged, some judgements not found, some grades negative."""
    draw = np.random.default_rng(seed)
    run, qrels = {}, {}
    for query in range(40):
        ids = draw.permutation([f"d{number}" for number in range(40)] + ["é", "Z", "a", "10", "9"]).tolist()
        found = ids[: draw.integers(1, 40)]
        scores = draw.integers(0, 4, len(found)) / 3 if ties else draw.normal(size=len(found))
        run[f"q{query}"] = {document: float(score) for document, score in zip(found, scores, strict=True)}
        judged = draw.choice(len(ids), draw.integers(1, 40), replace=False)
        qrels[f"q{query}"] = {ids[place]: int(draw.choice([-1, 0, 0, 0, 1, 2, 3])) for place in judged}
    return run, qrels


def rankings_of(run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]) -> dict[str, Ranking]:
    found = {}
    for query, results in run.items():
        ids = list(results)
        order = ranked(np.array(list(results.values())), ids)
        grades = np.array([qrels[query].get(ids[index], 0) for index in order])
        found[query] = Ranking(grades, np.array(list(qrels[query].values())))
    return found


@pytest.mark.parametrize("ties", [False, True], ids=["distinct scores", "ties"])
@pytest.mark.parametrize("level", [1, 2])
def test_every_metric_of_every_query_is_trec_evals(ties: bool, level: int) -> None:
    run, qrels = make_run(level, ties=ties)
    measures = {"recip_rank", "ndcg", "ndcg_cut.10", "recall.10", "map"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, measures, relevance_level=level).evaluate(run)
    for query, ranking in rankings_of(run, qrels).items():
        found = {
            "recip_rank": reciprocal_rank(ranking, relevant=level),
            "ndcg": ndcg(ranking),
            "ndcg_cut_10": ndcg(ranking, 10),
            "recall_10": recall(ranking, 10, level),
            "map": average_precision(ranking, level),
        }
        assert found == pytest.approx(expected[query], abs=1e-9), query


def test_means_of_a_run_are_over_all_judged_queries() -> None:
    run, qrels = make_run(5, ties=True)
    qrels["q3"] = dict.fromkeys(qrels["q3"], 0)
    expected = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "recall.10", "ndcg_cut.10", "map"}).evaluate(run)
    rankings = [ranking_of(list(results.items()), qrels[query]) for query, results in run.items()]
    found = metrics_of_run([*rankings, None], recall_at=10)
    for ours, theirs in (("mrr", "recip_rank"), ("recall@10", "recall_10"), ("ndcg@10", "ndcg_cut_10"), ("map", "map")):
        assert found[ours] == pytest.approx(np.mean([expected[query][theirs] for query in qrels]), abs=1e-9)
    assert (found["queries"], found["queries_left_out"]) == (40, 1)


def test_a_cutoff_hides_what_lies_behind_it() -> None:
    ranking = Ranking(np.array([0, 0, 1, 0]), np.array([1, 1, 0]))
    assert reciprocal_rank(ranking, 2) == recall(ranking, 2) == ndcg(ranking, 2) == 0
    assert (reciprocal_rank(ranking, 3), recall(ranking, 3)) == (1 / 3, 1 / 2)


def test_equal_scores_are_in_favour_of_the_larger_id_as_in_trec_eval() -> None:
    assert ranked(np.zeros(4), ["9", "10", "é", "z"]).tolist() == [2, 3, 0, 1]
    assert ranked(np.array([0.5, 0.5 + 1e-9]), np.array([7, 3])).tolist() == [0, 1]  # equal as float32


def test_nothing_relevant_at_all_gives_zeros_and_no_warning() -> None:
    found = mean_metrics([Ranking(np.zeros(3), np.zeros(2)), Ranking(np.zeros(0), np.zeros(0))])
    assert found == {"mrr": 0, "mrr@10": 0, "ndcg@10": 0, "recall@10": 0, "map": 0, "queries": 0, "queries_left_out": 2}
