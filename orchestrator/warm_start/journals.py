"""Read earlier sweeps from their journals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.common.trial_types import TrialKey
from orchestrator.journal.events import Event, Journal
from orchestrator.journal.folders import JOURNAL
from orchestrator.warm_start.earlier import EarlierTask, EarlierTrial
from orchestrator.warm_start.task_metadata import TaskMetadata


def tasks_of_folder(folder: Path) -> list[EarlierTask]:
    """Return a sweep's tasks from the journal in its folder; none if it ended before its ``sweep`` event.

    Raises:
        SweepError: If the journal is damaged.
    """
    return tasks_of_events(Journal.read(folder / JOURNAL))


def tasks_of_events(events: Sequence[Event]) -> list[EarlierTask]:
    """Return a sweep's tasks from its journal's events; none without a ``sweep`` event."""
    manifests = [event for event in events if event["event"] == "sweep"]
    if not manifests:
        return []
    manifest = manifests[-1]
    return [_earlier_task(manifest, task, fields, events) for task, fields in manifest["tasks"].items()]


def _earlier_task(manifest: Event, task: str, fields: Event, events: Sequence[Event]) -> EarlierTask:
    return EarlierTask(
        sweep=manifest["sweep"],
        task=task,
        task_metadata=_task_metadata(manifest, task, fields),
        higher_is_better=fields["higher_is_better"],
        read=_trial_reader(events, task),
    )


def _trial_reader(events: Sequence[Event], task: str) -> Callable[[], Sequence[EarlierTrial]]:
    return lambda: [trial for trial in _trials(events) if TrialKey.parse(trial.trial).task == task]


def _task_metadata(manifest: Event, task: str, fields: Event) -> TaskMetadata:
    backbone = manifest["backbone"]
    return TaskMetadata(
        backbone=backbone["model"],
        digest=backbone["digest"][task],
        architecture=backbone.get("architecture") or "",
        parameters=backbone["parameters"],
        type=manifest["config"]["tasks"][task].get("type") or "",
        metric=fields["metric"],
        labels=len(fields["labels"]),
        rows=fields["rows"]["train"],
        characters=fields.get("characters") or 0,
    )


def _trials(events: Sequence[Event]) -> list[EarlierTrial]:
    trials: dict[str, EarlierTrial] = {}
    for event in events:
        name = event.get("trial", "")
        match event["event"]:
            case "trial":
                method = TrialKey.parse(name).method
                trials.setdefault(
                    name, EarlierTrial(trial=name, method=method, params=event["params"], state="running")
                )
            case "rung" if name in trials:
                value = math.nan if event["value"] is None else event["value"]  # JSON has no NaN
                trials[name] = replace(trials[name], value=value)
            case "end" if name in trials:
                trials[name] = replace(trials[name], state=event["state"])
    return list(trials.values())
