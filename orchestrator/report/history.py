"""The history of a sweep, read from its journal: the plan, every trial, the test scores, the selection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import State, TrialKey, TrialRecord
from orchestrator.journal.events import Event, ending
from orchestrator.selection.overall import Overall
from orchestrator.selection.selection import Selection, selections
from orchestrator.tasks import recorded_metric


@dataclass(frozen=True, kw_only=True)
class History:
    """The events of a sweep, by kind.

    Args:
        name: name of the sweep.
        description: the ``sweep`` event; empty where the sweep failed before it was written.
        trials: every trial, in the order of their start.
        tests: ``test`` events, one for each checkpoint that was scored on the test split.
        selections: selections by task; empty where the sweep did not reach its end.
        overall: choice of one method for all tasks, where there are several.
        registered: the ``registered`` events.
        drops: by study, the ``drop`` event of a method that the race dropped and did not readmit.
        samples: by task, test rows with what the finalists wrote for them.
        drained: number of nodes that were taken back with notice.
        moved: number of trainings that went on in another lane because of that.
        next_trials: by study, how many of the next trials would go to it if the sweep were extended.
        reason: how the sweep ended; ``unfinished`` while it runs, or where its driver died.
        message: why it failed.
        begin: time of the first event, seconds since 1970.
        end: time of the last event, seconds since 1970.
    """

    name: str
    description: Event
    trials: tuple[TrialRecord, ...]
    tests: tuple[Event, ...] = ()
    selections: Mapping[str, Selection] = field(default_factory=dict)
    overall: Overall | None = None
    registered: tuple[Event, ...] = ()
    drops: Mapping[str, Event] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    drained: int = 0
    moved: int = 0
    next_trials: Mapping[str, int] = field(default_factory=dict)
    reason: str = "unfinished"
    message: str = ""
    begin: float = 0.0
    end: float = 0.0

    @classmethod
    def of(cls, name: str, events: Sequence[Event]) -> History:
        """Return the history that events describe; any of them may be missing."""
        by_kind: dict[str, list[Event]] = {}
        for event in events:
            by_kind.setdefault(event["event"], []).append(event)
        description, close = _last(by_kind.get("sweep")), ending(events)
        overall = _last(by_kind.get("selection_overall"))
        return cls(
            name=description.get("sweep", name),
            description=description,
            trials=_trials(events),
            tests=tuple(by_kind.get("test", ())),
            selections=selections(events),
            samples={event["task"]: event["samples"] for event in by_kind.get("samples", ())},
            overall=Overall.from_dict(overall) if overall else None,
            registered=tuple(by_kind.get("registered", ())),
            drops=_drops(events),
            drained=len(by_kind.get("drain", ())),
            moved=len(by_kind.get("move", ())),
            next_trials=_last(by_kind.get("searched")).get("next", {}),
            reason=close["reason"] if close else "unfinished",
            message=close.get("message") or "" if close else "",
            begin=events[0]["time"] if events else 0.0,
            end=events[-1]["time"] if events else 0.0,
        )

    @property
    def next_count(self) -> int:
        """Number of the trials of ``next_trials``."""
        return sum(self.next_trials.values())

    @property
    def config(self) -> Event:
        """The configuration with its defaults spelled out."""
        config: Event = self.description.get("config", {})
        return config

    @cached_property
    def tasks(self) -> Mapping[str, Event]:
        """Metric, direction, rows, labels and digest of each task."""
        if tasks := self.description.get("tasks"):
            return dict(tasks)
        return {record.key.task: {} for record in self.trials}

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of a full trial."""
        planned = self.config.get("training", {}).get("max_steps")
        return int(planned or max((record.step for record in self.trials), default=0))

    def metric(self, task: str) -> Metric:
        """Return the metric of a task."""
        recorded = self.tasks[task]
        return recorded_metric(recorded.get("metric", "score"), higher_is_better=recorded.get("higher_is_better", True))

    def of_task(self, task: str) -> tuple[TrialRecord, ...]:
        """Return the trials of a task."""
        return tuple(record for record in self.trials if record.key.task == task)

    def left_out(self, task: str) -> dict[str, str]:
        """Return why a method was not tried, by method."""
        reasons = {TrialKey(study, 0): reason for study, reason in self.description.get("left_out", {}).items()}
        return {key.method: reason for key, reason in reasons.items() if key.task == task}


def _drops(events: Iterable[Event]) -> dict[str, Event]:
    drops: dict[str, Event] = {}
    for event in events:
        if event["event"] == "drop":
            drops[event["study"]] = event
        elif event["event"] == "readmit":
            drops.pop(event["study"], None)
    return drops


def _last(events: list[Event] | None) -> Event:
    return events[-1] if events else {}


def _trials(events: Iterable[Event]) -> tuple[TrialRecord, ...]:
    records: dict[str, TrialRecord] = {}
    for event in events:
        match event["event"]:
            case "trial":
                key = TrialKey.parse(event["trial"])
                records[event["trial"]] = TrialRecord(key=key, params=event.get("params", {}))
            case "pause" | "promote" if event["trial"] in records:
                state: State = "paused" if event["event"] == "pause" else "running"
                records[event["trial"]] = replace(records[event["trial"]], state=state)
            case "rung" if event["trial"] in records:
                records[event["trial"]] = _with_rung(records[event["trial"]], event)
            case "end" if event["trial"] in records:
                state, reason = event["state"], event.get("reason") or ""
                records[event["trial"]] = replace(records[event["trial"]], state=state, reason=reason)
    return tuple(records.values())


def _with_rung(record: TrialRecord, event: Event) -> TrialRecord:
    value = event["value"] if event["value"] is not None else math.nan
    return replace(
        record,
        values={**record.values, int(event["step"]): value},
        lane_seconds=record.lane_seconds + (event.get("lane_seconds") or 0.0),
        measurements={**record.measurements, **measured(event.get("measurements"))},
    )


def measured(measurements: Mapping[str, Any] | None) -> dict[str, float]:
    """Return measurements without those that could not be taken."""
    return {name: float(value) for name, value in (measurements or {}).items() if value is not None}
