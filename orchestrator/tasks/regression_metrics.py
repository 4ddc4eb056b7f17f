"""Metrics of predicted numbers, computed on many samples of rows at once.

Predictions hold ``target`` and ``predicted``, in the target's unit. A sample in which all targets or all predictions
are equal has no correlation: ``spearman`` and ``pearson`` are 0 there, and ``r2`` is 0 where all targets are equal.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric

Scores = NDArray[np.float64]


def spearman(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the correlation of the ranks, ties having their mean rank; 0 where either has one value only."""
    from scipy.stats import rankdata

    targets, predicted = _samples(predictions, draws)
    return _correlation(rankdata(targets, axis=1), rankdata(predicted, axis=1))


def pearson(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the correlation; 0 where either has one value only."""
    return _correlation(*_samples(predictions, draws))


def root_mean_squared_error(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the root of the mean squared error, in the target's unit."""
    targets, predicted = _samples(predictions, draws)
    scores: Scores = np.sqrt(((predicted - targets) ** 2).mean(axis=1))
    return scores


def r2(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return 1 less the squared error over that of the sample's mean target; 0 where all targets are equal."""
    targets, predicted = _samples(predictions, draws)
    error = ((predicted - targets) ** 2).sum(axis=1)
    spread = ((targets - targets.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    varies = np.ptp(targets, axis=1) > 0
    scores: Scores = np.where(varies, 1 - error / np.where(varies, spread, 1), 0.0)
    return scores


SPEARMAN = Metric(name="spearman", bounds=(-1.0, 1.0), label="Spearman correlation", statistic=spearman)
METRICS = (
    SPEARMAN,
    Metric(name="pearson", bounds=(-1.0, 1.0), label="Pearson correlation", statistic=pearson),
    Metric(
        name="rmse",
        direction="minimize",
        bounds=(0.0, float("inf")),
        label="RMSE",
        statistic=root_mean_squared_error,
    ),
    Metric(name="r2", bounds=(-float("inf"), 1.0), label="R²", statistic=r2),
)


def _samples(predictions: pa.Table, draws: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    targets, predicted = (predictions[name].to_numpy() for name in ("target", "predicted"))
    return targets[draws], predicted[draws]


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> Scores:
    """Return the correlation in each line of two arrays of shape ``(samples, rows)``."""
    varies = (np.ptp(first, axis=1) > 0) & (np.ptp(second, axis=1) > 0)
    first, second = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    varies &= spread > 0
    scores: Scores = np.where(varies, (first * second).sum(axis=1) / np.where(varies, spread, 1), 0.0)
    return np.clip(scores, -1, 1)
