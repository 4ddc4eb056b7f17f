"""Who was left out, stopped, dropped or failed: when, how many, and by what numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from orchestrator.common.trial_types import TrialRecord
from orchestrator.report.lines import MethodLine

VERBS = {
    "pruned": "stopped early",
    "failed": "failed",
    "killed": "interrupted",
    "running": "never ended",
    "paused": "never ended",
}


@dataclass(frozen=True, kw_only=True)
class Departure:
    """Trials of a method that went for the same reason at the same time, or the method as a whole.

    Args:
        method: its name.
        what: ``3 trials stopped early``, ``left out``.
        when: the step, or the stage.
        why: the reason.
        numbers: what stood against what.
    """

    method: str
    what: str
    when: str
    why: str
    numbers: str = ""


def departures(
    lines: Iterable[MethodLine], steps: int, drops: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> list[Departure]:
    """Of all methods, in their order.

    Args:
        lines: the methods.
        steps: of a trial that is not stopped.
        drops: by method, why the race let it go.
    """
    return [one for line in lines for one in _of(line, steps, drops.get(line.method))]


def _of(line: MethodLine, steps: int, drop: Mapping[str, Any] | None) -> Iterator[Departure]:
    groups: dict[tuple[str, int, str], list[TrialRecord]] = {}
    for record in line.records:
        if record.state != "complete":
            groups.setdefault((record.state, record.step, record.reason), []).append(record)
    for (state, step, reason), own in sorted(groups.items(), key=lambda item: item[0][1]):
        trials = f"{len(own)} trial{'s' if len(own) > 1 else ''} {VERBS[state]}"
        when = f"step {step:,} of {steps:,}" if step else "before a result"
        why, numbers = reason.removesuffix(f" at step {step}"), _numbers(own, line.records, step)
        yield Departure(method=line.method, what=trials, when=when, why=why, numbers=numbers)
    if drop:
        leader = str(drop["leader"]).rpartition("/")[2]
        bound, best = abs(drop["bound"]), abs(drop["leader_best"])  # a loss is kept with its sign turned
        yield Departure(
            method=line.method,
            what="dropped from the race",
            when=f"after {drop['pulls']:.1f} full trials' cost",
            why=f"no longer hoped to reach {leader}",
            numbers=f"{bound:.3f} at best, {leader} has {best:.3f}, margin {drop['margin']:.3f}",
        )
    if line.status in ("out", "behind", "failed"):
        when = "after the search" if line.status == "out" else "in the final"
        what = {"out": "not in contention", "behind": "behind the best", "failed": "not scored"}[line.status]
        numbers = _scores(line)
        yield Departure(method=line.method, what=what, when=when, why=line.why, numbers=numbers)
    if line.status == "left out":
        yield Departure(method=line.method, what="left out", when="before the start", why=line.why)


def _numbers(own: Sequence[TrialRecord], all_of_method: Sequence[TrialRecord], step: int) -> str:
    """Their values at the step, and those of who went on."""
    values = [record.values[step] for record in own if math.isfinite(record.values.get(step, math.nan))]
    went_on = [r.values[step] for r in all_of_method if r.step > step and math.isfinite(r.values.get(step, math.nan))]
    if not values:
        return ""
    return _range(values) + (f", who went on {_range(went_on)}" if went_on else "")


def _scores(line: MethodLine) -> str:
    if line.entry is None:
        return ""
    low, high = line.entry.interval
    return f"{line.entry.score:.3f} [{low:.3f}, {high:.3f}] on test"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f}\N{EN DASH}{high:.3f}"
