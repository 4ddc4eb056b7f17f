"""Which of the methods that may be the best, why, and what would change it. Pure functions of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from orchestrator.common.units import duration, size
from orchestrator.selection.selection import Entry, Preference

COSTS: tuple[Preference, ...] = tuple(one for one in get_args(Preference) if one != "score")
CHEAPEST = {"size": "smallest", "memory": "leanest", "latency": "fastest", "training_time": "quickest to train"}
DECIMALS = 3


@dataclass(frozen=True)
class Choice:
    """A method, and two sentences."""

    method: str
    reason: str
    alternative: str


def cost(measurements: Mapping[str, float], preference: Preference) -> float:
    """What a method costs; endless where nobody measured it.

    ``size`` is in bytes on disk; ``memory`` in bytes above the backbone while training; ``latency`` the larger of what
    it adds to a pass over 1 row and over 32, as a fraction, and nothing where it merges into the weights;
    ``training_time`` in seconds.
    """
    if preference == "latency":
        added = (measurements.get("latency_overhead_1"), measurements.get("latency_overhead_32"))
        known = [one for one in added if one is not None]
        if measurements.get("mergeable"):
            return 0.0
        return max(0.0, *known) if known else math.inf  # no adapter makes a pass quicker: below 0 is noise
    name = {"size": "adapter_bytes", "memory": "peak_memory_bytes", "training_time": "train_seconds"}[preference]
    found = measurements.get(name)
    return math.inf if found is None else found


def amount(preference: Preference, value: float) -> str:
    """A cost as people read it."""
    if not math.isfinite(value):
        return "not measured"
    if preference == "latency":
        return f"{value:+.0%} latency" if value > 0 else "no added latency"
    return duration(value) if preference == "training_time" else size(value)


def ranked(entries: Iterable[Entry], prefer: Preference, *, higher_is_better: bool) -> list[Entry]:
    """The preferred first; equals by their score."""
    sign = -1 if higher_is_better else 1
    return sorted(entries, key=lambda e: (0.0 if prefer == "score" else cost(e.measurements, prefer), sign * e.score))


def choose(entries: Sequence[Entry], prefer: Preference, *, higher_is_better: bool) -> Choice:
    """The preferred one of the tied methods.

    Args:
        entries: everything that was scored; at least one is tied.
        prefer: what decides among the tied.
        higher_is_better: the metric's direction.
    """
    tied = ranked((one for one in entries if one.tied), prefer, higher_is_better=higher_is_better)
    best, *rest = tied
    reason = _among_tied(best, rest, prefer) if rest else _alone(best, entries)
    others = [one for one in entries if one is not best]
    change = _preferences(tied, prefer, higher_is_better=higher_is_better) if rest else ""
    return Choice(best.method, reason, change or _cheaper(best, others, higher_is_better=higher_is_better))


def _among_tied(best: Entry, rest: Sequence[Entry], prefer: Preference) -> str:
    count = f"the {len(rest) + 1} methods that cannot be told apart"
    if prefer == "score":
        return f"{best.method} has the best score of {count}."
    own, next_ = (amount(prefer, cost(one.measurements, prefer)) for one in (best, rest[0]))
    return f"{best.method} is the {CHEAPEST[prefer]} of {count}: {own} against {next_} of {rest[0].method}."


def _alone(best: Entry, entries: Sequence[Entry]) -> str:
    gap = [one for one in entries if one.gap is not None]
    if not gap:
        if any(one is not best for one in entries):
            return f"{best.method} is alone: no other method was in contention."
        return f"{best.method} is alone: there is nothing to compare it with."
    nearest = min(gap, key=lambda one: one.gap or 0.0)
    return (
        f"{best.method} is better than every other method beyond doubt:"
        f" {nearest.method}, the next, is at least {nearest.gap:.{DECIMALS}f} behind."
    )


def _preferences(tied: Sequence[Entry], prefer: Preference, *, higher_is_better: bool) -> str:
    """Which other preferences would choose another of the tied methods."""
    best, changes = tied[0], []
    for other in get_args(Preference):
        first = ranked(tied, other, higher_is_better=higher_is_better)[0]
        if other == prefer or first is best:
            continue
        if other == "score":
            changes.append(f"prefer: score would choose {first.method}")
        elif (found := cost(first.measurements, other)) < cost(best.measurements, other):
            against = f"({amount(other, found)} against {amount(other, cost(best.measurements, other))})"
            changes.append(f"prefer: {other} would choose {first.method} {against}")
    if not changes:
        names = ", ".join(one.method for one in tied[1:])
        return f"No preference would change it; only more test rows or seeds could part it from {names}."
    return f"{'; '.join(changes)}."


def _cheaper(best: Entry, others: Iterable[Entry], *, higher_is_better: bool) -> str:
    """What a limit on size would choose instead."""
    own = cost(best.measurements, "size")
    smaller = [one for one in others if cost(one.measurements, "size") < own]
    if not smaller:
        return "No limit on size would change it: nothing that was scored is smaller."
    first = ranked(smaller, "score", higher_is_better=higher_is_better)[0]
    sizes = f"({amount('size', cost(first.measurements, 'size'))} against {amount('size', own)})"
    lost = f"{abs(best.score - first.score):.{DECIMALS}f} behind"
    return f"A limit on size would: {first.method} is the best of the smaller ones {sizes}, {lost}."


def pareto(entries: Sequence[Entry], *, higher_is_better: bool) -> frozenset[str]:
    """The methods that nothing else beats in one of score, size, memory and latency without losing in another."""
    sign = -1 if higher_is_better else 1

    def costs(one: Entry) -> tuple[float, ...]:
        return (sign * one.score, *(cost(one.measurements, which) for which in ("size", "memory", "latency")))

    points = {one.method: costs(one) for one in entries}
    return frozenset(
        name
        for name, own in points.items()
        if not any(
            other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
            for other in points.values()
        )
    )
