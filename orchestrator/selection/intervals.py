"""Bootstrap intervals and standard errors of a score, over the rows that it was measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Computes the scores of many samples at once: from row indices of shape ``(samples, rows)``, which may repeat, to
shape ``(samples,)``."""
CHUNK = 100


def bootstrap(statistic: Statistic, rows: int, *, seed: int, repeats: int = 1000) -> NDArray[np.float64]:
    """Return the score on ``repeats`` resamples of the rows, drawn with replacement; shape ``(repeats,)``.

    ``scipy.stats.bootstrap`` is not used because it resamples the values of one array. Here a row is a label together
    with one or several predictions, and the score is a function of all rows at once: macro-F1 is not a mean over rows.

    Args:
        statistic: function that computes the score.
        rows: number of rows.
        seed: seed of the resamples.
        repeats: number of resamples; a thousand fix the ends of a 95 % interval to about a tenth of its width.

    Raises:
        ValueError: if there are no rows, or no repeats.
    """
    return np.concatenate([statistic(draws) for draws in _draws(rows, seed, repeats)])


def bootstrap_jointly(
    statistics: Sequence[Statistic], rows: int, *, seed: int, repeats: int = 1000
) -> NDArray[np.float64]:
    """Return several scores on the same resamples of the rows; shape ``(repeats, statistics)``.

    Resamples on which any score is undefined (NaN) are left out.

    Raises:
        ValueError: if there are no rows, no repeats, or no resample has all scores.
    """
    scores = np.concatenate(
        [np.stack([statistic(draws) for statistic in statistics], axis=1) for draws in _draws(rows, seed, repeats)]
    )
    defined: NDArray[np.float64] = scores[~np.isnan(scores).any(axis=1)]
    if len(defined) < min(2, repeats):
        raise ValueError("the scores are undefined on every resample")
    return defined


def _draws(rows: int, seed: int, repeats: int) -> Iterator[NDArray[np.int64]]:
    """Draw row indices with replacement, in chunks of shape ``(samples, rows)``."""
    if rows < 1 or repeats < 1:
        raise ValueError(f"cannot resample {rows} rows {repeats} times")
    random = np.random.default_rng(seed)
    for first in range(0, repeats, CHUNK):
        yield random.integers(rows, size=(min(CHUNK, repeats - first), rows))


def bootstrap_interval(
    statistic: Statistic, rows: int, *, seed: int, repeats: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the lower and upper end of the percentile interval of a score (Efron, 1979).

    The bias-corrected interval is not used: it needs a jackknife of as many scores as there are rows, and fails on a
    score that does not change when a row is left out. Resamples on which the score is undefined (NaN) are left out.

    Args:
        statistic: function that computes the score.
        rows: number of rows.
        seed: seed of the resamples.
        repeats: number of resamples.
        level: coverage of the interval, in 0..1.

    Raises:
        ValueError: if the level is out of range, there are no rows, or no resample has a score.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    scores = _defined(bootstrap(statistic, rows, seed=seed, repeats=repeats))
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def standard_error(statistic: Statistic, rows: int, *, seed: int, repeats: int = 1000) -> float:
    """Return the standard deviation of a score over resamples of its rows; 0 if only one has a score.

    Raises:
        ValueError: if there are no rows, or no resample has a score.
    """
    scores = _defined(bootstrap(statistic, rows, seed=seed, repeats=repeats))
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0


def _defined(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise ValueError("the score is undefined on every resample")
    return scores
