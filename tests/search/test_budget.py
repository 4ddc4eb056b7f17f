"""Time is kept for the final: as much as it will take, judged by the search, and never more than half."""

from __future__ import annotations

import pytest

from orchestrator.search.budget import Budget, Limits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def spent(limits: Limits, *, wall: float, steps: int = 0, lane_seconds: float = 0.0) -> bool:
    clock = Clock()
    budget = Budget(limits, clock)
    clock.now, budget.steps, budget.lane_seconds = wall, steps, lane_seconds
    return budget.spent


@pytest.mark.parametrize(
    ("wall", "expected"),
    [(59.0, False), (70.0, True)],  # 200 steps of 0.4 s on two lanes take 40 s of the 100
)
def test_wall_time_is_kept_for_the_final(wall: float, expected: bool) -> None:
    limits = Limits(wall_seconds=100.0, final_steps=200, lanes=2)
    assert spent(limits, wall=wall, steps=250, lane_seconds=100.0) is expected


@pytest.mark.parametrize(("lane_seconds", "expected"), [(55.0, False), (75.0, True)])
def test_lane_time_is_kept_for_the_final(lane_seconds: float, expected: bool) -> None:
    limits = Limits(lane_seconds=100.0, final_steps=100, lanes=2)
    assert spent(limits, wall=0.0, steps=250, lane_seconds=lane_seconds) is expected


def test_the_search_gets_half_whatever_the_final_takes() -> None:
    limits = Limits(wall_seconds=100.0, final_steps=10**6)
    assert not spent(limits, wall=49.0, steps=10, lane_seconds=40.0)
    assert spent(limits, wall=51.0, steps=10, lane_seconds=40.0)


def test_before_the_first_result_nothing_is_known_of_the_final() -> None:
    limits = Limits(wall_seconds=100.0, final_steps=10**6)
    assert not spent(limits, wall=99.0)
    assert spent(limits, wall=100.0)


def test_without_limits_nothing_is_ever_spent() -> None:
    assert not spent(Limits(trials=3, final_steps=100), wall=1e9, steps=1, lane_seconds=1e9)
