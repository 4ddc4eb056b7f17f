"""Verdicts on replays: whether a replay names a method of the tied set, its regret, and its cost until then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.common.errors import InputError, Problem
from orchestrator.simulation.replay import Incumbent
from orchestrator.simulation.table import Table

Z90, Z95 = 1.645, 1.960


@dataclass(frozen=True)
class TiedSet:
    """The methods of a table whose best score does not differ significantly from the table's best.

    Args:
        methods: names of the methods, the best first.
        capped: whether more than half of the methods were tied, so that the set has only the better half of all.
    """

    methods: tuple[str, ...]
    capped: bool


@dataclass(frozen=True)
class Verdict:
    """Verdict on a replay.

    Args:
        in_tied_set: whether the method named at the end is in the tied set.
        regret: the table's best score minus the best score of the replay.
        cost: cost until the named method is in the tied set and remains there, as a fraction of the table's cost; 1 if
            that does not happen.
    """

    in_tied_set: bool
    regret: float
    cost: float


def find_tied_set(table: Table, standard_error: float | None = None) -> TiedSet:
    """Return the methods whose best score does not differ significantly from the best of all.

    Two scores differ if they are more than 1.645 standard errors of a difference apart, which is the standard error of
    a score times the root of two. The best scores are those in the table, so that the error of choosing each method's
    best trial is left out.

    Args:
        table: table of an exhaustive search.
        standard_error: standard error of a score; the table's if left out, or that of a proportion of its validation
            rows.

    Raises:
        InputError: if the standard error is left out, and the best score is not a proportion.
    """
    best = {method: table.best(method) for method in table.methods}
    methods = sorted(best, key=lambda method: -best[method])
    top = best[methods[0]]
    error = table.standard_error(top) if standard_error is None else standard_error
    if error is None:
        raise InputError(
            "--curves", [Problem(table.task, f"the best score, {top:g}, is not between 0 and 1; add --standard-error")]
        )
    tied = [method for method in methods if top - best[method] <= Z90 * math.sqrt(2) * error]
    max_size = max(1, len(methods) // 2)
    return TiedSet(tuple(tied[:max_size]), len(tied) > max_size)


def judge(table: Table, incumbents: Sequence[Incumbent], tied_set: TiedSet) -> Verdict:
    """Return the verdict on a replay.

    Args:
        table: table that was searched.
        incumbents: changes of the best method so far, in order.
        tied_set: tied set of the table.
    """
    top = max(table.best(method) for method in table.methods)
    if not incumbents:
        return Verdict(False, top - _worst_score(table), 1.0)
    wrong = [index for index, incumbent in enumerate(incumbents) if incumbent.method not in tied_set.methods]
    first_right = wrong[-1] + 1 if wrong else 0
    cost = incumbents[first_right].cost / table.cost if first_right < len(incumbents) else 1.0
    return Verdict(first_right < len(incumbents), top - incumbents[-1].score, cost)


def _worst_score(table: Table) -> float:
    """Return the worst score of a table, the score of a replay without results."""
    scores = [score for curves in table.methods.values() for curve in curves for score in curve.scores.values()]
    return min(score for score in scores if math.isfinite(score))


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson, 1927)."""
    rate, z2 = hits / count, Z95**2
    middle = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)
