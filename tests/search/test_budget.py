"""Time is reserved for the final: as much as the search predicts, and never more than half of the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.search.budget import Budget, SpendingLimits
from orchestrator.search.reserve import FinalEstimate, Pace

ENDLESS = FinalEstimate(contenders=1, seeds=1, steps=10**6)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def spent(limits: SpendingLimits, *paces: Pace, wall: float) -> bool:
    clock = Clock()
    budget = Budget(limits, clock)
    clock.now = wall
    budget.paces = {str(number): pace for number, pace in enumerate(paces)}
    budget.lane_seconds = sum(pace.lane_seconds for pace in paces)
    return budget.spent


@pytest.mark.parametrize(("wall", "expected"), [(59.0, False), (61.0, True)])
def test_budget_reserves_wall_time_for_the_final(wall: float, expected: bool) -> None:
    final = FinalEstimate(contenders=1, seeds=4, steps=50)  # 200 steps of 0.4 s on two lanes take 40 s of the 100
    assert (
        spent(SpendingLimits(wall_seconds=100.0, final=final, lanes=2), Pace("mail", 250, 100.0), wall=wall) is expected
    )


@pytest.mark.parametrize(("lanes", "wall", "expected"), [(4, 79.0, False), (100, 79.0, False), (100, 81.0, True)])
def test_budget_reserves_longest_retraining_whatever_the_lanes(lanes: int, wall: float, expected: bool) -> None:
    final = FinalEstimate(contenders=1, seeds=4, steps=50)  # of 0.4 s each
    assert (
        spent(SpendingLimits(wall_seconds=100.0, final=final, lanes=lanes), Pace("mail", 250, 100.0), wall=wall)
        is expected
    )


@pytest.mark.parametrize(("lane_seconds", "expected"), [(70.0, False), (72.0, True)])
def test_budget_reserves_lane_time_for_the_final(lane_seconds: float, expected: bool) -> None:
    limits = SpendingLimits(lane_seconds=100.0, final=FinalEstimate(contenders=1, seeds=2, steps=50), lanes=2)
    assert spent(limits, Pace("mail", 250, lane_seconds), wall=0.0) is expected  # 0.28 and 0.29 s a step


def test_budget_reserves_at_most_half_for_the_final() -> None:
    limits = SpendingLimits(wall_seconds=100.0, final=ENDLESS)
    assert not spent(limits, Pace("mail", 10, 40.0), wall=49.0)
    assert spent(limits, Pace("mail", 10, 40.0), wall=51.0)


def test_budget_of_resumed_sweep_counts_elapsed_time() -> None:
    limits = SpendingLimits(wall_seconds=100.0, elapsed=48.0, final=ENDLESS)
    assert not spent(limits, Pace("mail", 10, 40.0), wall=1.0)
    assert spent(limits, Pace("mail", 10, 40.0), wall=3.0)


def test_budget_reserves_nothing_before_the_first_result() -> None:
    limits = SpendingLimits(wall_seconds=100.0, final=ENDLESS)
    assert not spent(limits, Pace("mail"), wall=99.0)
    assert spent(limits, Pace("mail"), wall=100.0)


def test_budget_without_limits_is_never_spent() -> None:
    assert not spent(SpendingLimits(trials=3, final=ENDLESS), Pace("mail", 1, 1e9), wall=1e9)


FAST, SLOW = Pace("mail", 100, 10.0, (40, 0.9)), Pace("mail", 100, 90.0, (40, 0.8))
OTHER, SILENT = Pace("news", 200, 100.0, (80, 0.1)), Pace("news")


@pytest.mark.parametrize(
    ("paces", "contenders", "expected"),
    [
        ([FAST, SLOW], 1, [1.0, 1.0]),
        ([FAST, SLOW], 3, [1.0, 1.0, 9.0, 9.0]),
        ([Pace("mail", 100, 10.0, (80, 0.7)), SLOW], 1, [1.0, 1.0]),  # a later rung counts before a better value
        ([FAST, SLOW, OTHER], 1, [1.0, 1.0, 5.0, 5.0]),  # of each task
        ([FAST, OTHER, SILENT], 2, [1.0, 1.0, 5.0, 5.0, 11 / 3, 11 / 3]),
        ([SILENT], 1, []),
    ],
)
def test_reserve_retrains_each_method_at_its_pace(
    paces: Sequence[Pace], contenders: int, expected: list[float]
) -> None:
    seconds = FinalEstimate(contenders=contenders, seeds=2, steps=10).seconds_per_retraining(paces)
    assert sorted(seconds) == pytest.approx(sorted(expected))


def test_reserve_ignores_slow_method_that_is_not_retrained(make_sweep: Any) -> None:
    """A hundred steps of the fast method take 10 s, of the slow one 2,200 s."""
    final = FinalEstimate(contenders=1, seeds=1, steps=100)
    for slow_value, expected in ((0.1, False), (0.9, True)):
        sweep = make_sweep(("mail/fast", "mail/slow"), folder=str(slow_value), lane_seconds=1000, final=final)
        fast, slow = (sweep.search.ask().key for _ in range(2))
        sweep.search.report(fast, 25, 0.5, lane_seconds=2.5)
        sweep.search.report(slow, 25, slow_value, lane_seconds=550)
        assert (sweep.search.ask() is None) is expected
