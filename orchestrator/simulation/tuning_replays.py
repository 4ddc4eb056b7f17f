"""Searches of recorded tables: what tuning still brought after each, and what a sweep would have said of it.

The scores of a table are taken as exact, in the search and in the whole table: what is judged is the tuning gain alone.
What test rows and seeds add is judged by :mod:`orchestrator.simulation.judged_sweeps`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.common.metric import Metric
from orchestrator.search.allocation import Allocation
from orchestrator.search.early_stopping import Halving
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.gain_draws import allowances, best_shares
from orchestrator.selection.tied_set import errors_of_equals, ranks
from orchestrator.selection.tuning_gain import Floats, Gain, TuningGain, room_of, unit_of
from orchestrator.simulation.replay import core, replay
from orchestrator.simulation.table import Table

LANES = 2


@dataclass(frozen=True)
class Searched:
    """The result of one search of a table.

    Args:
        table: The table.
        full: Scores of the full trials of each method; methods without any are missing.
    """

    table: Table
    full: Mapping[str, tuple[float, ...]]

    @property
    def unit(self) -> float:
        """The unit of the search's gains."""
        return unit_of([score for scores in self.full.values() for score in scores], self.metric)

    @property
    def metric(self) -> Metric:
        """The metric of the table's scores, whose name is not recorded: higher is better."""
        curves = [curve for curves in self.table.methods.values() for curve in curves]
        is_share = all(0 <= score <= 1 for curve in curves for score in curve.scores.values() if math.isfinite(score))
        return Metric(name="score", bounds=(0.0, 1.0) if is_share else (-math.inf, math.inf))

    def gains(self) -> Iterator[Gain]:
        """Yield what the search left to be gained, of each method."""
        if (unit := self.unit) > 0:
            for method, scores in self.full.items():
                yield Gain(method, len(scores), max(0.0, self.table.best(method) - max(scores)) / unit)


@dataclass(frozen=True)
class Named:
    """What a sweep would have said after a search.

    Args:
        methods: The set of methods that it names.
        probability: Of each method of the table, to be the best of the exhaustive search.
        best: The methods with the best score in the table.
    """

    methods: frozenset[str]
    probability: Mapping[str, float]
    best: frozenset[str]

    @property
    def holds_best(self) -> bool:
        """Whether the set holds the best method of the exhaustive search."""
        return bool(self.methods & self.best)

    @property
    def brier(self) -> float:
        """Mean squared error of the probabilities over the methods."""
        return float(np.mean([(value - (name in self.best)) ** 2 for name, value in self.probability.items()]))


def search_table(
    table: Table, allocation: Allocation, trials_per_method: int, seed: int, *, early_stopping: bool = True
) -> Searched:
    """Search a table as a sweep does, with a number of trials per method on average."""
    halving = Halving() if early_stopping else None
    policy = core(allocation, halving, trials=trials_per_method * len(table.methods))
    full: dict[str, list[float]] = {}
    for result in replay(policy, table, seed, math.inf, lanes=LANES):
        if result.step == table.rungs[-1] and math.isfinite(result.score):
            full.setdefault(result.method, []).append(result.score)
    return Searched(table, {method: tuple(scores) for method, scores in full.items()})


def name_methods(searched: Searched, gain: TuningGain, seed: int = 0) -> Named:
    """Return what a sweep would say after a search, by the rules of the final.

    Args:
        searched: The search.
        gain: Gains that were learned from other tables.
        seed: Seed of the draws.
    """
    table, names = searched.table, list(searched.full)
    scores = np.array([max(searched.full[name]) for name in names])
    trials = [len(searched.full[name]) for name in names]
    drawn = gain.draw(names, trials, searched.unit, room_of(scores, searched.metric), seed)
    exact = _exact(scores)
    tied = [rank.tied for rank in ranks(exact, searched.metric, tuning=allowances(drawn), seed=seed)]
    shares = best_shares(scores, errors_of_equals(exact, seed), drawn)
    top = max(map(table.best, table.methods))
    return Named(
        frozenset(name for name, is_tied in zip(names, tied, strict=True) if is_tied),
        dict.fromkeys(table.methods, 0.0) | dict(zip(names, map(float, shares), strict=True)),
        frozenset(name for name in table.methods if table.best(name) == top),
    )


def _exact(scores: Floats) -> Evidence:
    """Return the evidence of scores without an error."""
    count = len(scores)
    return Evidence(scores, np.zeros((count, count)), 0.0, np.zeros(count, np.int64), rows=1, freedom=0)
