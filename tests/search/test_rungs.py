from __future__ import annotations

import math

import pytest

from orchestrator.search.rungs import promotes, rung_steps


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
def test_rungs_grow_by_the_factor_and_end_at_the_end(
    max_steps: int, first_rung: float, factor: float, expected: tuple[int, ...]
) -> None:
    assert rung_steps(max_steps, first_rung, factor) == expected


@pytest.mark.parametrize(("max_steps", "first_rung", "factor"), [(0, 0.5, 2), (9, 0, 2), (9, 1.1, 2), (9, 0.5, 1)])
def test_rungs_out_of_range_are_refused(max_steps: int, first_rung: float, factor: float) -> None:
    with pytest.raises(ValueError, match="needs"):
        rung_steps(max_steps, first_rung, factor)


@pytest.mark.parametrize(
    ("value", "others", "factor", "goes_on"),
    [
        (0.1, [0.9, 0.8], 2, True),  # three results: nothing to compare with yet
        (0.1, [0.9, 0.8, 0.7], 2, False),
        (0.8, [0.9, 0.7, 0.6], 2, True),
        (0.7, [0.9, 0.8, 0.6], 2, False),
        (0.8, [0.9, 0.8, 0.8], 2, True),  # ties go on
        (0.9, [0.8, 0.7, 0.6], 10, True),  # the best always does
        (0.8, [0.9, 0.7, 0.6, 0.5, 0.4], 3, True),
        (0.7, [0.9, 0.8, 0.6, 0.5, 0.4], 3, False),
        (0.5, [math.nan, math.nan, math.inf], 2, True),  # what diverged is better than nobody
        (math.nan, [], 2, False),
        (math.inf, [0.1], 2, False),
    ],
)
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_fraction_goes_on(
    value: float, others: list[float], factor: float, goes_on: bool, higher_is_better: bool
) -> None:
    sign = 1 if higher_is_better else -1
    results = [sign * other for other in [*others, value]]
    assert promotes(sign * value, results, factor, 4, higher_is_better=higher_is_better) is goes_on
