"""Metrics that are computed from sums over rows, so that any number of resamples costs one matrix product.

Each row is reduced once to a few numbers (its sufficient statistics: 1 or 0 for a match, counts of n-grams for BLEU).
A sample of rows needs no more of a row than these, and a metric of the sample is a function of their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import ref

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_COUNTS = 2**22
"""Counts of draws in memory at a time: 32 MiB."""

_cache: dict[tuple[int, str], tuple[ref[pa.Table], Floats]] = {}


@dataclass(frozen=True)
class RowSums:
    """A metric's function from predictions and draws to scores, by way of sums over rows.

    Args:
        name: Name of the metric.
        per_row: From predictions to numbers of shape ``(rows, numbers)``; computed once for a table.
        score: From sums over the rows of each sample, of shape ``(samples, numbers)``, to scores. By default the only
            number's mean over the rows.
    """

    name: str
    per_row: Callable[[pa.Table], Floats]
    score: Callable[[Floats], Floats] | None = None

    def __call__(self, predictions: pa.Table, draws: NDArray[np.int64]) -> Floats:
        """Return the scores of samples of rows, of shape ``(samples,)``."""
        values = self._values(predictions)
        size = max(1, MOST_COUNTS // max(1, len(values)))
        sums = np.concatenate([_sums(values, draws[first : first + size]) for first in range(0, len(draws), size)])
        return self.score(sums) if self.score else sums[:, 0] / draws.shape[1]

    def _values(self, predictions: pa.Table) -> Floats:
        key = (id(predictions), self.name)
        entry = _cache.get(key)
        if entry is None or entry[0]() is not predictions:
            values = self.per_row(predictions)
            entry = _cache[key] = (ref(predictions, lambda _: _cache.pop(key, None)), values)
        return entry[1]


def _sums(values: Floats, draws: NDArray[np.int64]) -> Floats:
    """Return the sum of the drawn rows' values in each sample."""
    samples, rows = len(draws), len(values)
    cells = draws + np.arange(samples)[:, None] * rows
    counts = np.bincount(cells.ravel(), minlength=samples * rows).reshape(samples, rows)
    sums: Floats = counts.astype(np.float64) @ values
    return sums
