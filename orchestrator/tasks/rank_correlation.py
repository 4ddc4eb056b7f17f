"""Spearman's correlation of predicted numbers with their targets, on many samples of rows at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric


def spearman(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the correlation of the ranks, ties having their mean rank; 0 where either has one value only."""
    from scipy.stats import rankdata

    target, predicted = (
        rankdata(predictions[name].to_numpy()[draws], axis=1) - (draws.shape[1] + 1) / 2
        for name in ("target", "predicted")
    )
    spread = np.sqrt((target**2).sum(axis=1) * (predicted**2).sum(axis=1))
    scores: NDArray[np.float64] = (target * predicted).sum(axis=1) / np.where(spread > 0, spread, 1)
    return scores


SPEARMAN = Metric(name="spearman", bounds=(-1.0, 1.0), label="Spearman correlation", statistic=spearman)
