"""A task's methods, one row each: result, number of trials, and costs. Methods without a test score have a row too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.journal.events import Event
from orchestrator.report.history import History, measured
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection

Status = Literal[
    "recommended",
    "tied",
    "no better",
    "undecided",
    "worse",
    "cut",
    "eliminated",
    "scored",
    "failed",
    "untested",
    "none",
    "left out",
]
STATUS_TEXT: Mapping[Status, str] = {
    "recommended": "recommended",
    "tied": "tied",
    "no better": "not shown to be better than the baseline",
    "undecided": "undecided",
    "worse": "worse",
    "cut": "cut by the cap",
    "eliminated": "eliminated",
    "scored": "scored",
    "failed": "failed in the final",
    "untested": "not scored on test",
    "none": "no result",
    "left out": "left out",
}
"""Text of each status, in the order of the rows."""


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """A method of a task, whether it was scored on the test split or not.

    Args:
        method: name of the method.
        status: how it came out.
        why: reason of the status; empty where there is none.
        records: trials of the method.
        best: the trial with the best value at the latest rung; ``None`` without any value.
        result: result on the test split; ``None`` where it was not scored.
        measurements: measurements of the result, or else of the best trial.
    """

    method: str
    status: Status
    why: str = ""
    records: tuple[TrialRecord, ...] = ()
    best: TrialRecord | None = None
    result: MethodResult | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)

    @property
    def status_text(self) -> str:
        """The status as it is shown."""
        return STATUS_TEXT[self.status]

    @property
    def may_be_best(self) -> bool:
        """Whether it is recommended, or tied with the recommended method."""
        return self.status in ("recommended", "tied")

    @property
    def states(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(record.state for record in self.records)

    @property
    def shown_score(self) -> float:
        """Mean score on test, or else the best validation score; NaN without any."""
        return self.result.mean_score if self.result else self.best.value if self.best else math.nan


def method_rows(history: History, task: str, selection: Selection | None) -> list[MethodRow]:
    """Return a row for every method of a task: recommended, tied, other scored, without a score, left out.

    Args:
        history: history of the sweep.
        task: name of the task.
        selection: selection of the task, or that of :func:`from_tests`.
    """
    metric = history.metric(task)
    by_method: dict[str, list[TrialRecord]] = {}
    for record in history.of_task(task):
        by_method.setdefault(record.key.method, []).append(record)
    results = {result.method: result for result in selection.scored} if selection else {}
    rows = [_row(name, trials, results.get(name), selection, metric) for name, trials in by_method.items()]
    order = list(STATUS_TEXT)
    rows.sort(key=lambda row: (order.index(row.status), *_position(row, metric)))
    left_out = history.left_out(task).items()
    return rows + [MethodRow(method=name, status="left out", why=why) for name, why in left_out]


def _row(
    method: str,
    trials: Sequence[TrialRecord],
    result: MethodResult | None,
    selection: Selection | None,
    metric: Metric,
) -> MethodRow:
    last = max(trials, key=lambda record: record.rank(higher_is_better=metric.higher_is_better))
    best = last if math.isfinite(last.value) else None
    status, why = _status(method, trials, best, result, selection)
    return MethodRow(
        method=method,
        status=status,
        why=why,
        records=tuple(trials),
        best=best,
        result=result,
        measurements=measured(result.measurements) if result else last.measurements,
    )


def _status(
    method: str,
    trials: Sequence[TrialRecord],
    best: TrialRecord | None,
    result: MethodResult | None,
    selection: Selection | None,
) -> tuple[Status, str]:
    if result is None or selection is None:
        if selection and method in selection.failed:
            return "failed", selection.failed[method]
        reason = next((record.reason for record in trials if record.reason), "")
        return ("untested", "") if best else ("none", reason)
    note = "; ".join(text for text in (result.note, result.collapse) if text)
    if result.tied and not result.beats_baseline:
        return "no better", "; ".join(text for text in (selection.over_baseline(result), note) if text)
    if method == selection.recommended:
        return "recommended", note
    if result.tied:
        return "tied", note
    if result.undecided:
        undecided = result.reason or selection.behind(result)
        return "undecided", "; ".join(text for text in (undecided.removeprefix("undecided: "), note) if text)
    if result.gap is not None:
        return "worse", selection.behind(result) + (f"; {note}" if note else "")
    if result.cut:
        return "cut", result.reason + (f"; {note}" if note else "")
    return ("eliminated", result.reason) if result.reason else ("scored", note)


def _position(row: MethodRow, metric: Metric) -> tuple[float, float]:
    if row.result:
        return (0.0, -metric.sign * row.result.mean_score)
    step, value = row.best.rank(higher_is_better=metric.higher_is_better) if row.best else (0, -math.inf)
    return (-float(step), -value)


def from_tests(history: History, task: str) -> Selection | None:
    """Return the selection of a sweep that scored its best trials on test without comparing them."""
    tests = {TrialKey.parse(event["trial"]): event for event in history.tests if event["role"] in ("champion", "best")}
    tests = {key: event for key, event in tests.items() if key.task == task}
    champion = next((key for key, event in tests.items() if event["role"] == "champion"), None)
    if champion is None:
        return None
    metric = history.metric(task)
    values = {record.key: record.value for record in history.trials}
    results = [_uncompared(key, event, values.get(key, math.nan)) for key, event in tests.items()]
    return Selection(
        task=task,
        metric=metric,
        prefer="score",
        rows=history.tasks[task].get("rows", {}).get("test", 0),
        seeds=1,
        recommended=champion.method,
        trial=str(champion),
        reason=f"{champion.method} has the best validation score; no method was retrained, so ties are unknown",
        alternative="",
        tied=(),
        minimum_detectable_difference=math.nan,
        finalists=tuple(sorted(results, key=lambda result: -metric.sign * result.mean_score)),
    )


def _uncompared(key: TrialKey, test: Event, validation: float) -> MethodResult:
    score = test["checkpoint_score"]
    return MethodResult(
        method=key.method,
        trial=str(key),
        mean_score=score,
        checkpoint_score=score,
        interval=(test["interval"][0], test["interval"][1]),
        seed_scores=(score,),
        validation=validation,
        measurements=measured(test.get("measurements")),
    )
