from __future__ import annotations

import math

import pytest

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.search.early_stopping import Halving, decide, quota
from orchestrator.search.plans import Decision
from orchestrator.search.rungs import Rung

HALVING = Halving()


def decision(value: float, *, number: int = 5, halving: Halving | None = HALVING, **changes: bool) -> Decision:
    """Return the decision about a trial that reports after trials with 0.2, 0.4, 0.6 and 0.8."""
    rung = Rung(1)
    for other, result in enumerate((0.2, 0.4, 0.6, 0.8)):
        rung.add(other, result)
    rung.add(number, value)
    record = TrialRecord(key=TrialKey("mail/lora", number), params={}, values={25: value})
    flags = {"is_last": False, "budget_spent": False, "no_more": False, **changes}
    return decide(halving, record, rung, **flags)


@pytest.mark.parametrize(
    ("results", "factor", "no_more", "quota"),
    [
        (3, 2, False, 0),  # nothing to compare with yet
        (3, 2, True, 3),  # and nothing to come
        (4, 2, False, 2),
        (5, 2, True, 2),
        (6, 3, False, 2),
        (6, 10, False, 1),  # the best always goes on
    ],
)
def test_halving_quota(results: int, factor: float, no_more: bool, quota: int) -> None:
    assert Halving(reduction_factor=factor, min_results=4).quota(results, no_more=no_more) == quota


@pytest.mark.parametrize(
    ("value", "expected"), [(0.9, Decision.CONTINUE), (0.7, Decision.CONTINUE), (0.5, Decision.PAUSE)]
)
def test_early_stopping_pauses_all_but_the_best(value: float, expected: Decision) -> None:
    assert decision(value) is expected


def test_early_stopping_lets_the_first_trials_through() -> None:
    assert decision(0.1, number=5, halving=Halving(through=6)) is Decision.CONTINUE


def test_early_stopping_switched_off_pauses_no_trial() -> None:
    assert decision(0.1, halving=None) is Decision.CONTINUE


@pytest.mark.parametrize("halving", [HALVING, None])
def test_early_stopping_ends_trials_that_cannot_continue(halving: Halving | None) -> None:
    assert decision(math.nan, halving=halving) is Decision.STOP
    assert decision(0.9, halving=halving, is_last=True) is Decision.STOP
    assert decision(0.9, halving=halving, budget_spent=True) is Decision.STOP


def test_early_stopping_waits_for_results_that_can_still_come() -> None:
    few = Halving(min_results=6)
    assert decision(0.9, halving=few) is Decision.PAUSE
    assert decision(0.1, halving=few, no_more=True) is Decision.CONTINUE


def results_at_a_rung(*values: float, lower_is_better: bool = False) -> Rung:
    rung = Rung(-1 if lower_is_better else 1)
    for number, value in enumerate(values):
        rung.add(number, value)
    return rung


@pytest.mark.parametrize(
    ("error", "continue_"),
    [(None, 1), (0.0, 1), (0.012, 1), (0.059 / (1.96 * math.sqrt(2)), 2)],  # the last: 0.059 at the 95 % level
)
def test_early_stopping_within_noise_stops_neither_of_two(error: float | None, continue_: int) -> None:
    """Two trials stood at the majority class; the one that went on rose from 0.294 to 0.656."""
    rung = results_at_a_rung(0.294, 0.276)
    assert quota(HALVING, rung, no_more=False, error=error) == continue_


def test_early_stopping_within_noise_counts_from_the_last_that_continues() -> None:
    rung = results_at_a_rung(0.90, 0.80, 0.79, 0.70)
    assert quota(HALVING, rung, no_more=False, error=0.01) == 3
    losses = results_at_a_rung(1.0, 2.0, 2.01, 3.0, lower_is_better=True)
    assert quota(HALVING, losses, no_more=False, error=0.01) == 3
    assert quota(None, rung, no_more=False, error=0.01) == 4


def test_early_stopping_by_rank_alone_on_many_results() -> None:
    rung = results_at_a_rung(0.9, 0.9, 0.9, 0.9, 0.9, 0.9)
    assert quota(HALVING, rung, no_more=False, error=0.1) == 3


def test_early_stopping_within_noise_needs_results_to_compare_with() -> None:
    rung = results_at_a_rung(0.5, math.nan)
    assert quota(Halving(min_results=3), rung, no_more=False, error=0.1) == 0
    assert quota(HALVING, rung, no_more=False, error=0.1) == 1
