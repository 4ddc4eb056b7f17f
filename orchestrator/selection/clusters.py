"""Rows that belong together, as the turns of one conversation do, and are resampled together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.selection.intervals import Statistic

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Clusters:
    """Groups of rows, of which a resample takes all rows or none: rows of a group are not independent.

    Args:
        rows: Positions of the rows, group by group.
        starts: Where each group begins in ``rows``, and where the last one ends; shape ``(groups + 1,)``.
    """

    rows: Integers
    starts: Integers

    @classmethod
    def of(cls, numbers: Integers) -> Self:
        """Return the groups of the rows that have the same number, of shape ``(rows,)``."""
        order = np.argsort(numbers, kind="stable").astype(np.int64)
        _, starts = np.unique(numbers[order], return_index=True)
        return cls(order, np.append(starts, len(numbers)).astype(np.int64))

    @property
    def count(self) -> int:
        """How many groups there are: how many independent rows a score was measured on."""
        return len(self.starts) - 1

    def statistic(self, statistic: Statistic) -> Statistic:
        """Return a statistic of samples of groups, from one of samples of rows; the same one if each row is a group."""
        return statistic if self.count == len(self.rows) else partial(self._score, statistic)

    def _score(self, statistic: Statistic, draws: Integers) -> NDArray[np.float64]:
        sizes = np.diff(self.starts)[draws]
        lengths = sizes.sum(axis=1)
        scores = np.empty(len(draws))
        for length in np.unique(lengths):  # a statistic takes samples of one length at once
            same = np.flatnonzero(lengths == length)
            scores[same] = statistic(self._rows_of(draws[same].ravel()).reshape(len(same), length))
        return scores

    def _rows_of(self, groups: Integers) -> Integers:
        """Return the rows of some groups, one after the other."""
        sizes = np.diff(self.starts)[groups]
        ends = sizes.cumsum()
        rows: Integers = self.rows[np.repeat(self.starts[groups] - ends + sizes, sizes) + np.arange(ends[-1])]
        return rows
