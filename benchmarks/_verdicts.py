"""What a replay is worth: whether it named a method as good as any, what it missed, and what it cost until then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.common.errors import InputError, Problem
from orchestrator.simulation.replay import Incumbent
from orchestrator.simulation.table import Table

Z90, Z95 = 1.645, 1.960


@dataclass(frozen=True)
class Tied:
    """The methods of a table that are as good as its best.

    Args:
        methods: the best first.
        capped: whether more than half of the methods could not be told apart, so that only the better half counts.
    """

    methods: tuple[str, ...]
    capped: bool


@dataclass(frozen=True)
class Verdict:
    """One replay.

    Args:
        in_tied_set: the method that was named at the end is in the tied set.
        regret: the table's best score minus the one that was found.
        cost: until the method that is named is in the tied set and stays there, as a fraction of the table's cost; 1
            if that never was.
    """

    in_tied_set: bool
    regret: float
    cost: float


def tied(table: Table, standard_error: float | None = None) -> Tied:
    """The methods whose best score cannot be told from the best of all.

    Two scores differ if they lie further apart than 1.645 standard errors of a difference, which are those of a score
    times the root of two. It takes the table's own best scores, so it knows no noise but that of the rows.

    Args:
        table: an exhaustive search.
        standard_error: of a score; that of a share of the table's validation rows, if left out.

    Raises:
        InputError: if the best score is no share, so that its standard error has to be told.
    """
    best = {method: table.best(method) for method in table.methods}
    ordered = sorted(best, key=lambda method: -best[method])
    top = best[ordered[0]]
    error = table.standard_error(top) if standard_error is None else standard_error
    if error is None:
        raise InputError(
            "--curves", [Problem(table.task, f"its best score is {top:g}, no share; say --standard-error")]
        )
    near = [method for method in ordered if top - best[method] <= Z90 * math.sqrt(2) * error]
    most = max(1, len(ordered) // 2)
    return Tied(tuple(near[:most]), len(near) > most)


def judge(table: Table, named: Sequence[Incumbent], good: Tied) -> Verdict:
    """Judge a replay by the methods that it would have named as time went on.

    Args:
        table: that was searched.
        named: in order.
        good: what is right.
    """
    top = max(table.best(method) for method in table.methods)
    if not named:
        return Verdict(False, top - _worst(table), 1.0)
    wrong = [place for place, one in enumerate(named) if one.method not in good.methods]
    since = wrong[-1] + 1 if wrong else 0
    cost = named[since].cost / table.cost if since < len(named) else 1.0
    return Verdict(since < len(named), top - named[-1].score, cost)


def _worst(table: Table) -> float:
    """What finding nothing counts as."""
    scores = [score for curves in table.methods.values() for curve in curves for score in curve.scores.values()]
    return min(score for score in scores if math.isfinite(score))


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson, 1927)."""
    rate, z2 = hits / count, Z95**2
    middle = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)
