from __future__ import annotations

import math

import pytest

from orchestrator.search.rungs import Rung, rung_steps


@pytest.mark.parametrize(
    ("max_steps", "first_rung", "factor", "expected"),
    [
        (100, 0.25, 2, (25, 50, 100)),
        (100, 0.1, 3, (10, 30, 100)),
        (100, 0.24, 2, (24, 48, 100)),  # 96 is as good as the end
        (100, 0.3, 2, (30, 100)),
        (100, 0.6, 2, (60, 100)),
        (100, 1.0, 2, (100,)),
        (80, 0.125, 2, (10, 20, 40, 80)),
        (3, 0.25, 2, (1, 3)),
        (1, 0.25, 2, (1,)),
        (2, 0.01, 1.1, (1, 2)),
    ],
)
def test_rungs_grow_by_the_factor_to_the_last_step(
    max_steps: int, first_rung: float, factor: float, expected: tuple[int, ...]
) -> None:
    assert rung_steps(max_steps, first_rung, factor) == expected


@pytest.mark.parametrize(("max_steps", "first_rung", "factor"), [(0, 0.5, 2), (9, 0, 2), (9, 1.1, 2), (9, 0.5, 1)])
def test_rungs_out_of_range_are_refused(max_steps: int, first_rung: float, factor: float) -> None:
    with pytest.raises(ValueError, match="needs"):
        rung_steps(max_steps, first_rung, factor)


@pytest.mark.parametrize("sign", [1, -1])
def test_rung_promotes_waiting_trials_best_first(sign: int) -> None:
    rung = Rung(sign)
    for number, value in enumerate([0.3, 0.9, 0.5, 0.7]):
        rung.add(number, sign * value)
        if number != 1:
            rung.wait(number, sign * value)
    assert rung.best_waiting(1) is None  # the best of all is not among them
    promoted = []
    for _ in range(3):
        best = rung.best_waiting(4)
        assert best is not None
        promoted.append(best)
        rung.leave(best)
    assert promoted == [3, 2, 0]
    assert rung.best_waiting(4) is None


def test_rung_lets_any_waiting_trial_leave() -> None:
    rung = Rung(1)
    for number, value in enumerate([0.3, 0.9, 0.5]):
        rung.add(number, value)
        rung.wait(number, value)
    rung.leave(2)
    assert rung.best_waiting(3) == 1
    rung.leave(1)
    assert rung.best_waiting(3) == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_rung_counts_diverged_trials_as_worst(sign: int) -> None:
    rung = Rung(sign)
    rung.add(0, math.nan)
    rung.add(1, math.inf)
    rung.add(2, sign * 0.5)
    assert rung.results == 3
    assert rung.rank(2, sign * 0.5) == 0
    assert rung.rank(3, sign * 0.4) == 1


def test_rung_prefers_earlier_trial_of_equal_results() -> None:
    rung = Rung(1)
    for number in (3, 0, 2, 1):
        rung.add(number, 0.276)
    assert [rung.rank(number, 0.276) for number in range(4)] == [0, 1, 2, 3]
    rung.wait(3, 0.276)
    rung.wait(2, 0.276)
    assert rung.best_waiting(2) is None
    assert rung.best_waiting(3) == 2
