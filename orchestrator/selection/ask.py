"""A finished sweep is asked again, under limits and preferences that it did not know. Nothing is trained.

The answer is chosen among the methods that were scored on the test split. Those within the limits are compared with
each other anew, from the covariance that the sweep recorded: without the best one, others may be tied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.selection.best import ranks
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.limits import Limit, Limits, option, told
from orchestrator.selection.recommend import choose
from orchestrator.selection.selection import Entry, Preference, Selection

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Unscored:
    """A trial that was never scored on the test split, and looks better on validation than what was."""

    trial: str
    validation: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a sweep answers for one task.

    Args:
        selection: what it said when it ended.
        limits: what was asked for.
        entry: the method; ``None`` where nothing satisfies.
        tied: methods within the limits that cannot be told apart from the best of them, the answer first.
        reason: why this one, or why none; one sentence.
        alternative: what would change it; where nothing satisfies, what to ask for instead.
        broken: the limits that each scored method breaks, and what it has instead.
        unscored: a trial within the limits that may be worth a look.
    """

    selection: Selection
    limits: Limits
    entry: Entry | None
    tied: tuple[str, ...]
    reason: str
    alternative: str
    broken: Mapping[str, Mapping[Limit, float]]
    unscored: Unscored | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        entry = self.entry
        return {
            "task": self.selection.task,
            "method": entry.method if entry else None,
            "trial": entry.trial if entry else None,
            "metric": self.selection.metric,
            "score": entry.score if entry else None,
            "interval": list(entry.interval) if entry else None,
            "seeds": len(entry.scores) if entry else None,
            "tied": list(self.tied),
            "reason": self.reason,
            "alternative": self.alternative,
            "pareto": [one.method for one in self.selection.scored if one.pareto],
            "measurements": dict(entry.measurements) if entry else {},
            "broken": {method: dict(limits) for method, limits in self.broken.items()},
            "unscored": {"trial": self.unscored.trial, "validation": self.unscored.validation}
            if self.unscored
            else None,
        }


def ask(
    selection: Selection, limits: Limits, prefer: Preference | None, *, backbone: float, events: Sequence[Event] = ()
) -> Reply:
    """Choose again.

    Args:
        selection: what the sweep said of the task.
        limits: what the answer must keep.
        prefer: what decides among the tied; the sweep's own preference if left out.
        backbone: its bytes.
        events: the journal, for trials that were not scored on test.
    """
    broken = {one.method: limits.broken(one.measurements, backbone) for one in selection.scored}
    within = [number for number, one in enumerate(selection.scored) if not broken[one.method]]
    unscored = _unscored(selection, limits, backbone, events, [selection.scored[n] for n in within])
    if not within:
        reason, alternative = _nothing(selection, limits, broken)
        return Reply(
            selection=selection, limits=limits, entry=None, tied=(), reason=reason, alternative=alternative,
            broken=broken, unscored=unscored,
        )  # fmt: skip
    entries = _compared(selection, within)
    choice = choose(entries, prefer or selection.prefer, higher_is_better=selection.higher_is_better)
    best = next(one for one in entries if one.method == choice.method)
    return Reply(
        selection=selection,
        limits=limits,
        entry=best,
        tied=(best.method, *(one.method for one in entries if one.tied and one is not best)),
        reason=choice.reason,
        alternative=_gain(selection, limits, broken, best) if limits.given() else choice.alternative,
        broken=broken,
        unscored=unscored,
    )


def _gain(selection: Selection, limits: Limits, broken: Mapping[str, Mapping[Limit, float]], best: Entry) -> str:
    """Which single limit stands before a better score, and where it would have to be."""
    sign = 1 if selection.higher_is_better else -1
    possible = [
        (one, name, value)
        for one in selection.scored
        for name, value in broken[one.method].items()
        if len(broken[one.method]) == 1 and math.isfinite(value) and sign * one.score > sign * best.score
    ]
    if not possible:
        return "No single limit stands before a better score."
    one, name, value = max(possible, key=lambda found: sign * found[0].score)
    instead = f"Without {option(name)}" if name == "mergeable" else f"With {option(name, value)}"
    return f"{instead} it could be {one.method}, {one.score:.3f}."


def _compared(selection: Selection, within: Sequence[int]) -> list[Entry]:
    """The methods within the limits, held against each other; as they stood where all of them are."""
    entries = [selection.scored[number] for number in within]
    finalists = [number for number in within if number < len(selection.finalists)]
    if len(finalists) == len(selection.finalists):
        return entries
    # A finalist that is left is compared with its like; without any, the others are, each with its one score.
    numbers = finalists or list(within)
    evidence = Evidence.from_dict(selection.evidence).of(numbers)
    found = ranks(evidence, higher_is_better=selection.higher_is_better)
    rank = dict(zip((selection.scored[number].method for number in numbers), found, strict=True))
    return [
        replace(one, tied=rank[one.method].tied, gap=rank[one.method].gap or None) if one.method in rank else one
        for one in entries
    ]


def _nothing(selection: Selection, limits: Limits, broken: Mapping[str, Mapping[Limit, float]]) -> tuple[str, str]:
    """Why nothing satisfies, and the single limit that would have to give way."""
    reason = f"Nothing that was scored satisfies {limits.words()}."
    single = [(name, entry, broken[entry.method][name]) for entry in selection.scored
              for name in broken[entry.method] if len(broken[entry.method]) == 1]  # fmt: skip
    possible = [one for one in single if math.isfinite(one[2])]
    if possible:
        name, entry, value = min(possible, key=lambda one: _excess(one[0], one[2], limits))
        instead = f"leave out {option(name)}" if name == "mergeable" else f"write {option(name, value)}"
        return reason, f"Relax one limit: {instead}, and {entry.method} satisfies ({told(name, value)})."
    closest = min(selection.scored, key=lambda one: (len(broken[one.method]), one.method))
    has = ", ".join(f"{option(name)} ({told(name, value)})" for name, value in broken[closest.method].items())
    return reason, f"No single limit is enough: {closest.method} comes closest and breaks {has}."


def _excess(name: Limit, value: float, limits: Limits) -> float:
    """How far a value is beyond its limit, as a share of it; what cannot be had in parts comes last."""
    limit = limits.given()[name]
    if name == "mergeable":
        return math.inf
    return (value - limit) / abs(limit) if limit else math.inf


def _unscored(
    selection: Selection, limits: Limits, backbone: float, events: Iterable[Event], within: Sequence[Entry]
) -> Unscored | None:
    """The best full trial within the limits, if validation puts it before everything scored that is within them."""
    if not limits.given():
        return None
    sign = 1 if selection.higher_is_better else -1
    rungs = [one for one in events if one["event"] == "rung" and one["trial"].startswith(f"{selection.task}/")]
    last = max((one["step"] for one in rungs), default=0)
    scored = {one.trial for one in selection.scored}
    fitting = [one for one in rungs if one["step"] == last and one["value"] is not None and one["trial"] not in scored
               and not limits.broken(_pausing(one.get("measurements", {})), backbone)]  # fmt: skip
    if not fitting:
        return None
    best = max(fitting, key=lambda one: sign * one["value"])
    if any(sign * one.validation >= sign * best["value"] for one in within):
        return None
    return Unscored(trial=best["trial"], validation=best["value"])


def _pausing(measurements: Mapping[str, Any]) -> dict[str, float]:
    """Facts without those that JSON could not hold."""
    return {name: value for name, value in measurements.items() if value is not None}
