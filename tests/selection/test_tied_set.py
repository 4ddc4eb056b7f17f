"""Ranks and the tied set: critical values against published tables, and the rules around them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orchestrator.selection.evidence import Evidence
from orchestrator.selection.tied_set import ranks

from .small_evidence import MACRO_F1, PERPLEXITY, evidence


def tied(means: list[float], *, higher: bool = True, error: float = 0.01) -> list[int]:
    by_method = ranks(evidence(means, error), MACRO_F1 if higher else PERPLEXITY)
    return [method for method, rank in enumerate(by_method) if rank.tied]


@pytest.mark.parametrize(
    ("means", "higher", "expected"),
    [
        ([0.8, 0.8, 0.8], True, [0, 1, 2]),
        ([0.8, 0.5, 0.79], True, [0, 2]),
        ([0.8, 0.5, 0.6], True, [0]),
        ([0.8, 0.5, 0.6], False, [1]),
        ([4.0, 4.01, 9.0], False, [0, 1]),
        ([0.3], True, [0]),
    ],
)
def test_tied_set_holds_every_method_that_may_be_best(means: list[float], higher: bool, expected: list[int]) -> None:
    assert tied(means, higher=higher) == expected


def test_gap_is_the_lower_bound_of_the_distance() -> None:
    first, second = ranks(evidence([0.8, 0.5]), MACRO_F1)
    assert first.gap == 0
    assert second.gap == pytest.approx(0.3 - second.minimum_detectable_difference)
    assert 0.02 < second.minimum_detectable_difference < 0.05


@pytest.mark.parametrize(("methods", "critical"), [(2, 1.96), (4, 2.06), (6, 2.23)])
def test_critical_values_are_dunnetts_and_never_below_a_pairs(methods: int, critical: float) -> None:
    """One-sided 5 %, correlation 1/2, endless freedom: 2.06 and 2.23 (Dunnett, 1955); two methods need 1.96."""
    one = Evidence(np.full(methods, 0.8), np.eye(methods) * 1e-4, 0.0, np.full(methods, 1), 10**6, 0)
    (first, *_) = ranks(one, MACRO_F1)
    assert first.minimum_detectable_difference / one.contrast(0, 1)[0] == pytest.approx(critical, abs=0.035)


def test_critical_value_of_seeds_alone_is_students_t() -> None:
    one = Evidence(np.array([0.8, 0.8]), np.zeros((2, 2)), 1e-4, np.array([2, 2]), 1000, 2)
    (first, _) = ranks(one, MACRO_F1)
    assert first.minimum_detectable_difference / one.contrast(0, 1)[0] == pytest.approx(stats.t.ppf(0.975, 2), rel=0.05)


def test_tied_set_without_uncertainty_holds_equal_scores_alone() -> None:
    nothing = Evidence(np.array([0.8, 0.8]), np.full((2, 2), 1e-4), 0.0, np.array([1, 1]), 1000, 0)
    assert all(rank.tied for rank in ranks(nothing, MACRO_F1))


def test_ranks_are_reproducible() -> None:
    assert ranks(evidence([0.8, 0.79]), MACRO_F1) == ranks(evidence([0.8, 0.79]), MACRO_F1)
