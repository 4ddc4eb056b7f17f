"""Rows that belong together are resampled together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.selection.clusters import Clusters
from orchestrator.selection.intervals import bootstrap, standard_error

NUMBERS = np.array([7, 3, 7, 9, 3, 7])


def test_clusters_draw_all_rows_of_a_group_or_none() -> None:
    clusters, calls = Clusters.of(NUMBERS), []

    def statistic(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        calls.append(draws.shape)
        return np.array([sum(10.0**row for row in draw) for draw in draws])

    scores = clusters.statistic(statistic)(np.array([[0, 1], [2, 2], [0, 1], [1, 1], [2, 0]]))
    three, seven, nine = 10.0**1 + 10**4, 10.0**0 + 10**2 + 10**5, 10.0**3
    assert scores.tolist() == [three + seven, 2 * nine, three + seven, 2 * seven, nine + three]
    assert sorted(calls) == [(1, 2), (1, 3), (1, 6), (2, 5)], "samples of one length are scored at once"
    assert clusters.count == 3


def test_clusters_of_single_rows_leave_a_statistic_as_it_is() -> None:
    def statistic(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        return draws.mean(axis=1)

    clusters = Clusters.of(np.array([5, 2, 8]))
    assert clusters.statistic(statistic) is statistic
    assert clusters.count == 3


@pytest.mark.parametrize("sizes", [[4] * 150, [1, 2, 3, 8] * 40])
def test_standard_error_over_clusters_is_that_of_their_sums(sizes: list[int]) -> None:
    random = np.random.default_rng(1)
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    values = random.normal(size=len(sizes))[numbers] + 0.1 * random.normal(size=len(numbers))

    def mean(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        return values[draws].mean(axis=1)

    # The variance of a ratio of sums over independent groups (Cochran, Sampling Techniques, 1977, chapter 2).
    rests = np.bincount(numbers, values) - values.mean() * np.array(sizes)
    expected = math.sqrt((rests**2).sum() * len(sizes) / (len(sizes) - 1)) / len(numbers)
    clusters = Clusters.of(random.permutation(len(sizes))[numbers])
    measured = standard_error(clusters.statistic(mean), clusters.count, seed=1, repeats=2000)
    assert measured == pytest.approx(expected, rel=0.07)
    assert measured > 1.5 * standard_error(mean, len(numbers), seed=1)
    assert bootstrap(clusters.statistic(mean), clusters.count, seed=2, repeats=3).shape == (3,)
