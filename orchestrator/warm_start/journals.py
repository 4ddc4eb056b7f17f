"""Earlier sweeps, read from their journals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.common.trial_types import TrialKey
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.sweeps import JOURNAL
from orchestrator.warm_start.earlier import Earlier, Tried
from orchestrator.warm_start.task_metadata import TaskMetadata

Event = Mapping[str, Any]


def of_folder(folder: Path) -> list[Earlier]:
    """A sweep's tasks, from the journal in its folder; none if it ended before it knew them.

    Raises:
        SweepError: if the journal is damaged.
    """
    return of_events(Journal.read(folder / JOURNAL))


def of_events(events: Sequence[Event]) -> list[Earlier]:
    """A sweep's tasks, from its journal's events."""
    described = [event for event in events if event["event"] == "sweep"]
    if not described:
        return []
    return [_earlier(described[-1], task, facts, events) for task, facts in described[-1]["tasks"].items()]


def _earlier(described: Event, task: str, facts: Event, events: Sequence[Event]) -> Earlier:
    return Earlier(
        sweep=described["sweep"],
        task=task,
        task_metadata=_task_metadata(described, task, facts),
        higher_is_better=facts["higher_is_better"],
        read=_reader(events, task),
    )


def _reader(events: Sequence[Event], task: str) -> Callable[[], Sequence[Tried]]:
    return lambda: [one for one in _trials(events) if TrialKey.parse(one.trial).task == task]


def _task_metadata(described: Event, task: str, facts: Event) -> TaskMetadata:
    backbone = described["backbone"]
    return TaskMetadata(
        backbone=backbone["model"],
        digest=backbone["digest"][task],
        architecture=backbone.get("architecture") or "",
        parameters=backbone["parameters"],
        type=described["config"]["tasks"][task].get("type") or "",
        metric=facts["metric"],
        labels=len(facts["labels"]),
        rows=facts["rows"]["train"],
        characters=facts.get("characters") or 0,
    )


def _trials(events: Sequence[Event]) -> list[Tried]:
    found: dict[str, Tried] = {}
    for event in events:
        name = event.get("trial", "")
        match event["event"]:
            case "trial":
                method = TrialKey.parse(name).method
                found.setdefault(name, Tried(trial=name, method=method, params=event["params"], state="running"))
            case "rung" if name in found:
                found[name] = replace(found[name], value=math.nan if event["value"] is None else event["value"])
            case "end" if name in found:
                found[name] = replace(found[name], state=event["state"])
    return list(found.values())
