from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.selection.intervals import bootstrap, bootstrap_interval, standard_error

RIGHT = np.random.default_rng(0).random(400) < 0.8


def accuracy(draws: NDArray[np.int64]) -> NDArray[np.float64]:
    return RIGHT[draws].mean(axis=1)


def test_standard_error_of_an_accuracy_is_the_binomial_one() -> None:
    share = RIGHT.mean()
    expected = math.sqrt(share * (1 - share) / len(RIGHT))
    assert standard_error(accuracy, len(RIGHT), seed=1, repeats=4000) == pytest.approx(expected, rel=0.05)


def test_bootstrap_interval_agrees_with_scipy() -> None:
    values = RIGHT.astype(float)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert bootstrap_interval(accuracy, len(RIGHT), seed=1, repeats=4000) == pytest.approx(tuple(theirs), abs=0.006)


def test_bootstrap_interval_grows_with_level_and_shrinks_with_rows() -> None:
    def width(level: float, rows: int) -> float:
        low, high = bootstrap_interval(accuracy, rows, seed=1, level=level)
        return high - low

    assert width(0.5, 400) < width(0.95, 400) < width(0.99, 400)
    assert width(0.95, 400) < width(0.95, 50)


def test_bootstrap_interval_has_its_nominal_coverage() -> None:
    random = np.random.default_rng(3)
    held = 0
    for repeat in range(300):
        sample = random.normal(size=60)

        def mean(draws: NDArray[np.int64], sample: NDArray[np.float64] = sample) -> NDArray[np.float64]:
            return sample[draws].mean(axis=1)

        low, high = bootstrap_interval(mean, 60, seed=repeat, repeats=300)
        held += low <= 0 <= high
    assert 0.90 <= held / 300 <= 0.98


def test_bootstrap_is_reproducible() -> None:
    assert bootstrap_interval(accuracy, 400, seed=5) == bootstrap_interval(accuracy, 400, seed=5)
    assert bootstrap_interval(accuracy, 400, seed=5) != bootstrap_interval(accuracy, 400, seed=6)
    first, second = (bootstrap(accuracy, 400, seed=5, repeats=50) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_bootstrap_draws_with_replacement_from_all_rows() -> None:
    seen: list[NDArray[np.int64]] = []

    def keep(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        seen.append(draws)
        return np.zeros(len(draws))

    assert bootstrap(keep, 10, seed=0, repeats=250).shape == (250,)
    draws = np.concatenate(seen)
    assert draws.shape == (250, 10)
    assert set(draws.ravel()) == set(range(10))
    assert all(len(set(rows)) < 10 for rows in draws[:5])


def test_bootstrap_leaves_out_resamples_without_a_score() -> None:
    def sometimes(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.where(draws[:, 0] == 0, math.nan, 1.0)

    assert bootstrap_interval(sometimes, 3, seed=0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_interval(lambda draws: np.full(len(draws), math.nan), 3, seed=0)


def test_standard_error_of_a_single_resample_is_zero() -> None:
    assert standard_error(accuracy, 400, seed=0, repeats=1) == 0


@pytest.mark.parametrize(("rows", "repeats", "level"), [(0, 10, 0.9), (10, 0, 0.9), (10, 10, 0.0), (10, 10, 1.0)])
def test_bootstrap_refuses_invalid_arguments(rows: int, repeats: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"resample|level"):
        bootstrap_interval(accuracy, rows, seed=0, repeats=repeats, level=level)
