"""Why a trial or a method of a sweep came out as it did, in at most ten lines, from the journal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import close_matches
from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.common.units import counted, duration
from orchestrator.journal.events import Event
from orchestrator.report.early_ends import STATE_TEXT, EarlyEnd, early_ends
from orchestrator.report.history import History
from orchestrator.report.method_rows import MethodRow, from_tests, method_rows
from orchestrator.report.trial_decisions import rung_decisions
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection

MAX_LINES = 10
MOST_REASONS = 3
"""Reasons for which trials of a method ended early that are listed; the others are counted."""
Line = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What became of a trial or a method.

    Args:
        sweep: name of the sweep.
        subject: ``task/method/number`` or ``task/method``.
        outcome: how it came out, a clause.
        lines: name and text of each further line.
        numbers: the numbers behind the lines, JSON values.
    """

    sweep: str
    subject: str
    outcome: str
    lines: tuple[Line, ...]
    numbers: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        texts = dict(self.lines)
        return {"sweep": self.sweep, "subject": self.subject, "outcome": self.outcome, "lines": texts, **self.numbers}


def explain(sweep: str, events: Sequence[Event], name: str) -> Explanation:
    """Explain a trial or a method.

    Args:
        sweep: name of the sweep.
        events: all events of its journal.
        name: ``task/method/number`` or ``task/method``; the task may be left out where it is clear.

    Raises:
        InputError: if the sweep has no such trial or method, or several tasks have one.
    """
    history = History.of(sweep, events)
    subject = _find(history, name)
    record = next((record for record in history.trials if str(record.key) == subject), None)
    explanation = _of_trial(history, events, record) if record else _of_method(history, events, subject)
    assert len(explanation.lines) < MAX_LINES
    return explanation


def _find(history: History, name: str) -> str:
    """Return the trial or the study that a name means."""
    studies = [str(record.key.study) for record in history.trials]
    studies += [f"{task}/{method}" for task in history.tasks for method in history.left_out(task)]
    known = list(dict.fromkeys([*studies, *(str(record.key) for record in history.trials)]))
    tasks = [task for task in history.tasks if f"{task}/{name}" in known]
    if name in known:
        return name
    if len(tasks) == 1:
        return f"{tasks[0]}/{name}"
    if tasks:
        message = f"{len(tasks)} tasks have one; write {' or '.join(f'{task}/{name}' for task in tasks)}"
    elif not known:
        message = "the sweep has no trial yet"
    else:
        short = [text.partition("/")[2] for text in known] if len(history.tasks) == 1 else []
        near = close_matches(name, [*known, *short])
        hint = f"near: {', '.join(near)}" if near else f"its methods: {', '.join(dict.fromkeys(studies))}"
        message = f"there is no such trial or method; {hint}"
    raise InputError(history.name, [Problem(name, message)])


def _of_trial(history: History, events: Sequence[Event], record: TrialRecord) -> Explanation:
    key, metric = record.key, history.metric(record.key.task)
    decisions = rung_decisions(events, key, metric)
    moves = [event for event in events if event["event"] == "move" and event["trial"] == str(key)]
    tests = [event for event in history.tests if event["trial"] == str(key)]
    state = STATE_TEXT.get(record.state, "complete")
    at = f" at step {record.step:,} of {history.steps:,}" if record.values else " before a result"
    why = record.reason.removesuffix(f" at step {record.step}")
    scores = ", ".join(f"{value:.3f} at step {step:,}" for step, value in record.values.items())
    lines = [
        ("tried", _params(record)),
        (
            "began",
            "with the default configuration" if key.number == 0 else f"as trial {key.number + 1} of {key.method}",
        ),
        ("validation", f"{metric.label} {scores}" if scores else ""),
        ("decided", "; ".join(decision.text for decision in decisions)),
        ("retried", f"{counted(len(moves), 'time')} in another lane, when its node was taken back" if moves else ""),
        ("test", _tests(tests, metric.label)),
        ("final", _place_in_final(history, record)),
        ("took", f"{duration(record.lane_seconds)} of lane time" if record.lane_seconds else ""),
    ]
    numbers = {
        "state": record.state,
        "reason": record.reason,
        "params": dict(record.params),
        "metric": metric.name,
        "values": {str(step): value for step, value in record.values.items()},
        "decisions": [
            {name: getattr(decision, name) for name in ("what", "step", "value", "place", "results")}
            for decision in decisions
        ],
        "moves": len(moves),
        "test": [{"role": test["role"], "seed": test.get("seed"), "score": test["checkpoint_score"]} for test in tests],
        "lane_seconds": record.lane_seconds,
    }
    return _explanation(history, str(key), f"{state}{at}{f': {why}' if why else ''}", lines, numbers)


def _tests(tests: Sequence[Event], label: str) -> str:
    scores: dict[int | None, float] = {test.get("seed"): test["checkpoint_score"] for test in tests}
    if not scores:
        return ""
    of = "its own checkpoint" if set(scores) == {None} else counted(len(scores), "retraining")
    return f"{label} {', '.join(f'{score:.3f}' for score in scores.values())} ({of})"


def _place_in_final(history: History, record: TrialRecord) -> str:
    """Return what the final made of a trial: it takes one trial of each method."""
    selection, key = history.selections.get(record.key.task), record.key
    if selection is None:
        return ""
    result = _result(selection, key.method)
    if result is not None and selection.trial == str(key):
        return _verdict(selection, result)
    if result is None:
        return ""
    if result.trial != str(key):
        return f"not in it: {result.trial} was the best of {key.method}, {result.validation:.3f} on validation"
    return f"the best of {key.method}; {result.reason or _verdict(selection, result)}"


def _of_method(history: History, events: Sequence[Event], study: str) -> Explanation:
    key = TrialKey(study, 0)
    task, method = key.task, key.method
    selection, metric = history.selections.get(task), history.metric(task)
    shown = selection or from_tests(history, task)
    row = next(row for row in method_rows(history, task, shown) if row.method == method)
    drop = history.drops.get(study)
    ends = early_ends([row], history.steps, {method: drop} if drop else {})
    of_trials = [end for end in ends if end.what[0].isdigit()]
    readmissions = sum(event["event"] == "readmit" and event["study"] == study for event in events)
    race = next((f"{end.what} {end.when}: {end.why}; {end.numbers}" for end in ends if end.what.startswith("drop")), "")
    result = _result(selection, method) if selection else None
    lines = [
        ("trials", _trials(history, row)),
        (
            "best",
            f"{row.best.key}, {metric.label} {row.best.value:.3f} on validation at step {row.best.step:,}"
            if row.best
            else "",
        ),
        ("with", _params(row.best) if row.best else ""),
        ("ended early", _ends(of_trials)),
        ("race", race or (f"dropped and readmitted {counted(readmissions, 'time')}" if readmissions else "")),
        ("screening", _screening(result)),
        ("test", _score(selection, result) if selection and result else ""),
        ("final", _verdict(selection, result) if selection and result and not result.reason else ""),
        ("registered", _registered(history, task, method)),
    ]
    numbers = {
        "status": row.status,
        "reason": row.why,
        "trials": dict(row.states),
        "best": {"trial": str(row.best.key), "value": row.best.value} if row.best else None,
        "drop": {name: value for name, value in drop.items() if name not in ("time", "event")} if drop else None,
        "result": result.to_dict() if result else None,
    }
    outcome = row.status_text + (f": {row.why}" if row.status in ("left out", "none", "failed") and row.why else "")
    if not history.selections and row.best:
        outcome = "no result on test yet" if history.reason == "unfinished" else "not scored on test"
    return _explanation(history, study, outcome, lines, numbers)


def _trials(history: History, row: MethodRow) -> str:
    if not row.records:
        return ""
    states = ", ".join(f"{count} {STATE_TEXT.get(state, state)}" for state, count in row.states.items())
    seconds = sum(record.lane_seconds for record in row.records)
    everything = sum(record.lane_seconds for record in history.of_task(row.records[0].key.task))
    share = f"; {duration(seconds)} of lane time, {seconds / everything:.0%} of its task's" if everything else ""
    return f"{len(row.records)}: {states}{share}"


def _ends(ends: Sequence[EarlyEnd]) -> str:
    texts = [f"{end.what} at {end.when}" + (f": {end.why}" if end.why else "") for end in ends]
    texts = [f"{text} ({end.numbers})" if end.numbers else text for text, end in zip(texts, ends, strict=True)]
    more = [f"and for {counted(len(texts) - MOST_REASONS, 'other reason')}"] if len(texts) > MOST_REASONS else []
    return "; ".join([*texts[:MOST_REASONS], *more]).replace("at before", "before")


def _screening(result: MethodResult | None) -> str:
    if result is None:
        return ""
    return f"not passed: {result.reason}" if result.reason else f"passed with {result.validation:.3f} on validation"


def _score(selection: Selection, result: MethodResult) -> str:
    low, high = result.interval
    seeds = ", ".join(f"{score:.3f}" for score in result.seed_scores)
    text = (
        f"{selection.metric.label} {result.mean_score:.3f} [{low:.3f}, {high:.3f}] ({selection.level_text} interval,"
        f" {selection.rows:,} test rows), {counted(len(result.seed_scores), 'score')}: {seeds}"
    )
    return "; ".join(part for part in (text, result.collapse, result.note) if part)


def _verdict(selection: Selection, result: MethodResult) -> str:
    if result.method == selection.recommended:
        return f"closest: {selection.no_better}" if selection.no_better else f"chosen: {selection.reason}"
    if result.tied:
        return f"may be the best, as {selection.recommended}, which was chosen: {selection.reason}"
    return f"{'undecided: ' if result.undecided else ''}{selection.behind(result)}"


def _registered(history: History, task: str, method: str) -> str:
    versions: dict[str, str] = {}  # a sweep that was extended tells what it had registered again
    for event in history.registered:
        version = event.get("methods", {}).get(method)
        if event["task"] == task and version:
            alias = f", alias {version['alias']}" if version.get("alias") else ""
            versions[f"{event['name']} version {version['version']}"] = alias
    return "; ".join(f"{version}{alias}" for version, alias in versions.items())


def _result(selection: Selection, method: str) -> MethodResult | None:
    return next((result for result in selection.scored if result.method == method), None)


def _params(record: TrialRecord) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in record.params.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _explanation(
    history: History, subject: str, outcome: str, lines: Sequence[Line], numbers: Mapping[str, Any]
) -> Explanation:
    told = tuple((name, text) for name, text in lines if text)
    return Explanation(sweep=history.name, subject=subject, outcome=outcome, lines=told, numbers=numbers)
