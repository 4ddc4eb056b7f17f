"""The selection's statements on sweeps of known truth; ``benchmarks.selection_calibration`` simulates more of them."""

import math
from typing import Any

import pytest

from orchestrator.simulation.judged_sweeps import (
    best_in_tied_set,
    coverage,
    judge_different_methods,
    judge_equal_methods,
    judge_spaced_methods,
    single_winners,
    tied_share,
)

SWEEPS = 150

pytestmark = pytest.mark.slow


def test_selection_intervals_and_tied_set_hold_on_known_truth() -> None:
    """Tolerances are three binomial standard errors of so few sweeps."""
    judgements = judge_different_methods(SWEEPS)
    intervals = sum(judgement.shape.methods for judgement in judgements)
    slack = 3 * math.sqrt(0.05 * 0.95 / intervals * 2)  # intervals of one sweep share its rows: half as many count
    assert 0.93 - slack <= coverage(judgements) <= 0.97 + slack
    assert best_in_tied_set(judgements) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / SWEEPS)


@pytest.mark.parametrize("options", [{}, {"seed": 4, "shuffled": True}])
def test_selection_names_no_winner_among_equal_methods(options: dict[str, Any]) -> None:
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / SWEEPS)
    assert single_winners(judge_equal_methods(SWEEPS, **options)) <= limit


def test_selection_tells_methods_two_standard_errors_apart() -> None:
    assert tied_share(judge_spaced_methods(60, 6, ladder=True)) < 0.5
