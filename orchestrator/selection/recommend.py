"""The choice among the tied methods, its reason, and its alternative. Pure functions of results and measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from orchestrator.common.metric import Metric
from orchestrator.common.units import duration, size
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Preference

COSTS: tuple[Preference, ...] = tuple(name for name in get_args(Preference) if name != "score")
NOTABLE_SIZE = 0.8
"""Fraction of the chosen adapter's size from which on another is named as smaller."""
CHEAPEST = {
    "size": "has the smallest adapter",
    "memory": "needs the least memory",
    "latency": "adds the least latency",
    "training_time": "trains fastest",
}


@dataclass(frozen=True)
class Recommendation:
    """The chosen method, why, and what would be chosen otherwise; two clauses."""

    method: str
    reason: str
    alternative: str


def cost(measurements: Mapping[str, float], preference: Preference) -> float:
    """Return what a method costs; infinity where it was not measured.

    ``size`` is in bytes on disk; ``memory`` in bytes above the backbone while training; ``latency`` the larger of what
    it adds to a forward pass over 1 row and over 32, as a fraction, and 0 where it merges into the weights;
    ``training_time`` in seconds.
    """
    if preference == "latency":
        return 0.0 if measurements.get("mergeable") else _latency_beside(measurements)
    name = {"size": "adapter_bytes", "memory": "peak_memory_bytes", "training_time": "train_seconds"}[preference]
    value = measurements.get(name)
    return math.inf if value is None else value


def _latency_beside(measurements: Mapping[str, float]) -> float:
    """Return the latency of the adapter beside the backbone's weights, unmerged: the larger overhead, a fraction."""
    added = (measurements.get("latency_overhead_1"), measurements.get("latency_overhead_32"))
    measured = [overhead for overhead in added if overhead is not None]
    return max(0.0, *measured) if measured else math.inf  # no adapter speeds a pass up: below 0 is noise


def cost_text(preference: Preference, value: float) -> str:
    """Return a cost with its unit, as it stands in a table."""
    if not math.isfinite(value):
        return "not measured"
    if preference == "latency":
        return f"{value:+.0%}" if value > 0 else "none"
    return duration(value) if preference == "training_time" else size(value)


def measured_text(preference: Preference, measurements: Mapping[str, float], *, backbone: float = 0) -> str:
    """Return what a method costs with its unit, as it stands in a table.

    Latency is that of the adapter as ``predict`` and a server run it, beside the backbone's weights; that of an adapter
    which can be merged into them is told too.

    Args:
        preference: kind of cost.
        measurements: measurements of the method.
        backbone: bytes that are added to ``memory``: those of the backbone, where it is to be included.
    """
    if preference == "memory":
        return cost_text("memory", backbone + cost(measurements, "memory"))
    if preference != "latency" or not measurements.get("mergeable"):
        return cost_text(preference, cost(measurements, preference))
    beside = _latency_beside(measurements)
    return f"{cost_text('latency', beside)} (none merged)" if beside > 0 and math.isfinite(beside) else "none"


def cost_phrase(preference: Preference, measurements: Mapping[str, float]) -> str:
    """Return a cost with its unit, as it stands in a sentence."""
    value = cost(measurements, preference)
    if not math.isfinite(value):
        return cost_text(preference, value)
    if preference == "memory":
        return f"{cost_text(preference, value)} above the backbone"
    if preference != "latency":
        return cost_text(preference, value)
    if value > 0:
        return f"{value:+.0%} latency"
    beside = _latency_beside(measurements)
    return f"no added latency once merged ({beside:+.0%} before)" if 0 < beside < math.inf else "no added latency"


def in_order(results: Iterable[MethodResult], prefer: Preference, metric: Metric) -> list[MethodResult]:
    """Return the results in the order of a preference, equal ones by their score, then by name."""

    def position(result: MethodResult) -> tuple[float, float, str]:
        price = 0.0 if prefer == "score" else cost(result.measurements, prefer)
        return price, -metric.sign * result.mean_score, result.method

    return sorted(results, key=position)


def recommend(
    results: Sequence[MethodResult], prefer: Preference, metric: Metric, *, level: str = "95 %"
) -> Recommendation:
    """Choose among the tied methods.

    Args:
        results: results of all scored methods; at least one is tied.
        prefer: what decides among the tied.
        metric: metric of the scores.
        level: level at which methods are tied, as text.
    """
    tied = [result for result in results if result.tied]
    # A tied method that is no better than a trivial predictor is chosen only where none is.
    better = [result for result in tied if result.beats_baseline]
    candidates = in_order(better or tied, prefer, metric)
    best, *rest = candidates
    others = [result for result in results if result is not best]
    if 0 < len(better) < len(tied) and not rest:
        reason = f"{best.method} alone of the {len(tied)} tied methods is better than the baseline"
    else:
        reason = _reason_among_tied(best, rest, prefer) if rest else _reason_alone(best, others, metric, level)
        reason += _undecided(others)
    alternative = _alternative_preferences(candidates, prefer, metric) if rest else ""
    return Recommendation(best.method, reason, alternative or _smaller_alternative(best, others, metric))


def _reason_among_tied(best: MethodResult, rest: Sequence[MethodResult], prefer: Preference) -> str:
    count = f"of the {len(rest) + 1} tied methods"
    if prefer == "score":
        return f"{best.method} has the best score {count}"
    costs = [cost_phrase(prefer, result.measurements) for result in (best, rest[0])]
    if cost(best.measurements, prefer) == cost(rest[0].measurements, prefer):
        return f"{best.method} has the better score of those that tie: {costs[0]}, as {rest[0].method}"
    return f"{best.method} {CHEAPEST[prefer]} {count}: {costs[0]}, {rest[0].method} {costs[1]}"


def _reason_alone(best: MethodResult, others: Sequence[MethodResult], metric: Metric, level: str) -> str:
    distant = [result for result in others if result.gap is not None]
    if distant:
        nearest = min(distant, key=lambda result: result.gap or 0.0)
        return (
            f"{best.method} is better than every other compared method ({level} level):"
            f" {nearest.method}, the closest, is at least {nearest.gap:.3f} {metric.worse}"
        )
    if cut := [result.method for result in others if result.cut]:
        return f"{best.method} is best on validation and alone was retrained: the cap on finalists cut {', '.join(cut)}"
    if others:
        return f"only {best.method} passed the validation screening{_trials([best, *others])}"
    return f"{best.method} is the only method that was scored"


def _undecided(others: Iterable[MethodResult]) -> str:
    """Return that methods are not out, since they were tuned too little for that; empty where there are none."""
    names = [result.method for result in others if result.undecided]
    return f"; undecided: {', '.join(names)}, which more trials may bring ahead" if names else ""


def _trials(results: Sequence[MethodResult]) -> str:
    """Return how many full trials of each method that rests on; empty where it was not recorded."""
    counts = {result.method: result.trials for result in results}
    if not any(counts.values()):
        return ""
    if len(most := set(counts.values())) == 1:
        return f", with {(count := most.pop())} full trial{'s' * (count > 1)} of each"
    return f", full trials: {', '.join(f'{method} {count}' for method, count in counts.items())}"


def _alternative_preferences(tied: Sequence[MethodResult], prefer: Preference, metric: Metric) -> str:
    """Return which other preferences would choose another of the tied methods."""
    best, changes = tied[0], []
    for other in get_args(Preference):
        first = in_order(tied, other, metric)[0]
        if other == prefer or first is best:
            continue
        if other == "score":
            changes.append(f"prefer: score selects {first.method}")
        elif cost(first.measurements, other) < cost(best.measurements, other):
            instead = f"{cost_phrase(other, first.measurements)} instead of {cost_phrase(other, best.measurements)}"
            changes.append(f"prefer: {other} selects {first.method}, {instead}")
    if not changes:
        names = ", ".join(result.method for result in tied[1:])
        return f"every preference selects {best.method}; only more test rows or seeds can separate it from {names}"
    return "; ".join(changes)


def _smaller_alternative(best: MethodResult, others: Iterable[MethodResult], metric: Metric) -> str:
    """Return what a limit on size would choose instead."""
    best_size = cost(best.measurements, "size")
    smaller = [result for result in others if cost(result.measurements, "size") < NOTABLE_SIZE * best_size]
    if not smaller:
        return "none by size: no scored method is notably smaller"
    first = in_order(smaller, "score", metric)[0]
    sizes = f"{cost_text('size', cost(first.measurements, 'size'))} instead of {cost_text('size', best_size)}"
    distance = metric.sign * (best.mean_score - first.mean_score)
    how = metric.worse if distance >= 0 else {"lower": "higher", "higher": "lower"}[metric.worse]
    return f"if size is limited: {first.method}, {sizes}, {abs(distance):.3f} {how}"


def pareto(results: Sequence[MethodResult], metric: Metric) -> frozenset[str]:
    """Return the methods that no other beats in one of score, size, memory and latency without losing in another."""

    def costs(result: MethodResult) -> tuple[float, ...]:
        prices = (cost(result.measurements, name) for name in ("size", "memory", "latency"))
        return (-metric.sign * result.mean_score, *prices)

    points = {result.method: costs(result) for result in results}
    return frozenset(
        method for method, point in points.items() if not any(_dominates(other, point) for other in points.values())
    )


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))
