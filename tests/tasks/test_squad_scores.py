"""The scores are those of the official scripts, whose verdicts on ninety answers `squad_scores.json` holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlm.tasks.squad_scores import best_threshold, score

OFFICIAL: dict[str, Any] = json.loads(Path(__file__).with_name("squad_scores.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", [1, 2])
def test_exact_match_and_f1_are_the_official_scripts(version: int) -> None:
    compared = 0
    for case in OFFICIAL["cases"]:
        if (expected := case.get(f"version_{version}")) is not None:
            found = score(case["prediction"], case["truths"], version_2=version == 2)
            assert found == pytest.approx(expected, abs=1e-12), case
            compared += 1
    assert compared > 50


@pytest.mark.parametrize(("number", "name"), [(0, "best_exact"), (1, "best_f1")])
def test_the_best_threshold_parts_the_questions_where_the_official_script_does(number: int, name: str) -> None:
    cases = OFFICIAL["cases"]
    scores = np.array([case["version_2"][number] for case in cases], np.float64)
    differences = np.array([case["null_difference"] for case in cases])
    answerable = np.array([bool(case["truths"]) for case in cases])
    threshold, best = best_threshold(scores, differences, answerable)
    following = differences[differences > OFFICIAL["best"][f"{name}_thresh"]].min()
    assert OFFICIAL["best"][f"{name}_thresh"] < threshold < following
    assert best == pytest.approx(OFFICIAL["best"][name], abs=1e-9)


def test_equal_differences_are_not_parted() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        answerable = draw.random(6) < 0.5
        scores, differences = np.where(answerable, draw.random(6), 0.0), draw.integers(-1, 3, 6).astype(np.float64)
        threshold, best = best_threshold(scores, differences, answerable)

        def reached(limit: float) -> float:
            return 100 * float(np.where(differences <= limit, scores, ~answerable).mean())  # noqa: B023

        assert reached(threshold) == pytest.approx(best)
        assert best == pytest.approx(max(reached(limit) for limit in np.arange(-2.5, 4)))


def test_where_no_answer_is_ever_right_every_question_is_said_to_have_none() -> None:
    threshold, best = best_threshold(np.zeros(3), np.array([-5.0, 1.0, -2.0]), np.array([True, False, False]))
    assert threshold < -5
    assert best == pytest.approx(200 / 3)
