"""A task's methods, one line each: how they stand, how often they were tried, and what they cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.report.history import History, known
from orchestrator.selection.selection import Entry, Selection

Status = Literal["recommended", "tied", "behind", "out", "scored", "failed", "untested", "none", "left out"]
WORDS: Mapping[Status, str] = {
    "recommended": "recommended",
    "tied": "tied",
    "behind": "behind",
    "out": "out on validation",
    "scored": "scored",
    "failed": "failed in the final",
    "untested": "not tested",
    "none": "no result",
    "left out": "left out",
}


@dataclass(frozen=True, kw_only=True)
class MethodLine:
    """A method on a task.

    Args:
        method: its name.
        status: how it came out.
        why: the reason, where there is one to tell.
        records: its trials.
        best: the one that reached furthest with the best value; ``None`` without any.
        entry: its score on test; ``None`` where it was not looked at.
    """

    method: str
    status: Status
    why: str = ""
    records: tuple[TrialRecord, ...] = ()
    best: TrialRecord | None = None
    entry: Entry | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The standing, for people."""
        return WORDS[self.status]

    @property
    def may_be_best(self) -> bool:
        """Recommended, or tied with it."""
        return self.status in ("recommended", "tied")

    @property
    def states(self) -> Counter[str]:
        """How many trials ended in which way."""
        return Counter(record.state for record in self.records)

    @property
    def score(self) -> float:
        """On test, or else on validation; NaN without any."""
        return self.entry.score if self.entry else self.best.value if self.best else math.nan


def method_lines(history: History, task: str, selection: Selection | None) -> list[MethodLine]:
    """Every method of a task: recommended, tied, the other scored ones, what has no score, what was left out.

    Args:
        history: of the sweep.
        task: its name.
        selection: what the sweep said of it, or :func:`from_tests`.
    """
    higher = bool(history.tasks[task].get("higher_is_better", True))
    by_method: dict[str, list[TrialRecord]] = {}
    for record in history.of_task(task):
        by_method.setdefault(record.key.method, []).append(record)
    entries = {entry.method: entry for entry in selection.scored} if selection else {}
    tried = [_line(name, own, entries.get(name), selection, higher) for name, own in by_method.items()]
    order = list(WORDS)
    tried.sort(key=lambda one: (order.index(one.status), *_worse(one, higher_is_better=higher)))
    out = [MethodLine(method=name, status="left out", why=why) for name, why in history.left_out(task).items()]
    return tried + out


def _line(
    method: str, own: Sequence[TrialRecord], entry: Entry | None, selection: Selection | None, higher: bool
) -> MethodLine:
    best = max(own, key=lambda record: record.rank(higher_is_better=higher))
    found = best if math.isfinite(best.value) else None
    status, why = _status(method, own, found, entry, selection)
    return MethodLine(
        method=method,
        status=status,
        why=why,
        records=tuple(own),
        best=found,
        entry=entry,
        measurements=known(entry.measurements) if entry else best.measurements,
    )


def _status(
    method: str, own: Sequence[TrialRecord], best: TrialRecord | None, entry: Entry | None, selection: Selection | None
) -> tuple[Status, str]:
    if entry is None or selection is None:
        if selection and method in selection.failed:
            return "failed", selection.failed[method]
        reason = next((record.reason for record in own if record.reason), "")
        return ("untested", "") if best else ("none", reason)
    if method == selection.recommended:
        return "recommended", entry.note
    if entry.tied:
        return "tied", entry.note
    if entry.gap is not None:
        return "behind", f"by {entry.gap:.3f} at least" + (f"; {entry.note}" if entry.note else "")
    return ("out", entry.reason) if entry.reason else ("scored", entry.note)


def _worse(line: MethodLine, *, higher_is_better: bool) -> tuple[float, float]:
    if line.entry:
        return (0.0, -line.entry.score if higher_is_better else line.entry.score)
    step, value = line.best.rank(higher_is_better=higher_is_better) if line.best else (0, -math.inf)
    return (-float(step), -value)


def from_tests(history: History, task: str) -> Selection | None:
    """What can be told of a sweep that scored its best on test without comparing them."""
    measurements = history.tasks[task]
    tests = {TrialKey.parse(e["trial"]): e for e in history.tests if e["role"] in ("champion", "best")}
    own = {key: event for key, event in tests.items() if key.task == task}
    champion = next((key for key, event in own.items() if event["role"] == "champion"), None)
    if champion is None:
        return None
    values = {record.key: record.value for record in history.trials}
    entries = [
        Entry(
            method=key.method,
            trial=str(key),
            score=event["score"],
            interval=(event["interval"][0], event["interval"][1]),
            scores=(event["score"],),
            validation=values.get(key, math.nan),
            measurements=known(event.get("measurements")),
        )
        for key, event in own.items()
    ]
    return Selection(
        task=task,
        metric=measurements.get("metric", "score"),
        higher_is_better=measurements.get("higher_is_better", True),
        prefer="score",
        rows=measurements.get("rows", {}).get("test", 0),
        seeds=1,
        recommended=champion.method,
        trial=str(champion),
        reason=f"{champion.method} has the best score on validation; nothing was retrained, so ties are not known.",
        alternative="",
        tied=(),
        minimum_detectable_difference=math.nan,
        finalists=tuple(
            sorted(entries, key=lambda e: -e.score if measurements.get("higher_is_better", True) else e.score)
        ),
    )
