"""Trials and methods that did not reach the end: stopped, failed, dropped, eliminated or left out, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from orchestrator.common.trial_types import TrialRecord
from orchestrator.report.method_rows import MethodRow

STATE_TEXT = {
    "pruned": "stopped early",
    "failed": "failed",
    "killed": "interrupted",
    "running": "did not end",
    "paused": "did not end",
}


@dataclass(frozen=True, kw_only=True)
class EarlyEnd:
    """Trials of a method that ended for the same reason at the same step, or the method as a whole.

    Args:
        method: name of the method.
        what: ``3 trials stopped early``, ``left out``.
        when: step or phase.
        why: reason.
        numbers: scores that the decision compared.
    """

    method: str
    what: str
    when: str
    why: str
    numbers: str = ""


def early_ends(
    rows: Iterable[MethodRow], steps: int, drops: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> list[EarlyEnd]:
    """Return what ended early, method by method in the order of the rows.

    Args:
        rows: rows of the methods.
        steps: optimizer steps of a full trial.
        drops: by method, the event of its drop from the race.
    """
    return [early_end for row in rows for early_end in _of_method(row, steps, drops.get(row.method))]


def _of_method(row: MethodRow, steps: int, drop: Mapping[str, Any] | None) -> Iterator[EarlyEnd]:
    groups: dict[tuple[str, int, str], list[TrialRecord]] = {}
    for record in row.records:
        if record.state != "complete":
            groups.setdefault((record.state, record.step, record.reason), []).append(record)
    for (state, step, reason), records in sorted(groups.items(), key=lambda item: item[0][1]):
        trials = f"{len(records)} trial{'s' if len(records) > 1 else ''} {STATE_TEXT[state]}"
        when = f"step {step:,} of {steps:,}" if step else "before a result"
        why, numbers = reason.removesuffix(f" at step {step}"), _values_at_step(records, row.records, step)
        yield EarlyEnd(method=row.method, what=trials, when=when, why=why, numbers=numbers)
    if drop:
        leader = str(drop["leader"]).rpartition("/")[2]
        bound, best = abs(drop["bound"]), abs(drop["leader_best"])  # a loss is kept with its sign turned
        yield EarlyEnd(
            method=row.method,
            what="dropped from the race",
            when=f"after the cost of {drop['pulls']:.1f} full trials",
            why=f"not expected to reach {leader}",
            numbers=f"upper bound {bound:.3f}, {leader} has {best:.3f}, margin {drop['margin']:.3f}",
        )
    if row.status in ("eliminated", "cut", "worse", "no better", "failed"):
        when = "after the search" if row.status in ("eliminated", "cut") else "in the final"
        outcomes = {
            "eliminated": "eliminated on validation",
            "cut": "cut by the cap",
            "worse": "worse than the best",
            "no better": "not shown to be better than the baseline",
            "failed": "not scored",
        }
        what, numbers = outcomes[row.status], _test_score(row)
        yield EarlyEnd(method=row.method, what=what, when=when, why=row.why, numbers=numbers)
    if row.status == "left out":
        yield EarlyEnd(method=row.method, what="left out", when="before the start", why=row.why)


def _values_at_step(stopped: Sequence[TrialRecord], all_of_method: Sequence[TrialRecord], step: int) -> str:
    """Return the values of stopped trials at a step, and those of the trials that continued."""
    values = [record.values[step] for record in stopped if math.isfinite(record.values.get(step, math.nan))]
    continued = [r.values[step] for r in all_of_method if r.step > step and math.isfinite(r.values.get(step, math.nan))]
    if not values:
        return ""
    return _range(values) + (f", continued trials {_range(continued)}" if continued else "")


def _test_score(row: MethodRow) -> str:
    if row.result is None:
        return ""
    low, high = row.result.interval
    return f"{row.result.mean_score:.3f} [{low:.3f}, {high:.3f}] on test"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f}\N{EN DASH}{high:.3f}"
