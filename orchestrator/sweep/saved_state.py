"""What a sweep's journal tells of its earlier lives: that is what a resumed sweep goes on from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from orchestrator.common.trial_types import Answer
from orchestrator.tracking.journal import Journal, ending
from orchestrator.tracking.sweeps import JOURNAL

Event = Mapping[str, Any]


@dataclass(frozen=True)
class SavedSweep:
    """A sweep's earlier lives; a sweep that begins has none.

    Args:
        sweep: its name.
        folder: where its journal is.
        events: of its journal.
    """

    sweep: str
    folder: Path
    events: tuple[Event, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> Self:
        """From the journal in a sweep's folder."""
        return cls(folder.name, folder, tuple(Journal.read(folder / JOURNAL)))

    @cached_property
    def description(self) -> Event:
        """The ``sweep`` event; empty where no life came so far."""
        return next((event for event in self.events if event["event"] == "sweep"), {})

    @property
    def attempts(self) -> int:
        """How often a driver took it up."""
        return self._count("sweep") + self._count("resume")

    @cached_property
    def wall_seconds(self) -> float:
        """How long drivers were at work on it, all lives together."""
        total, began, last = 0.0, math.inf, -math.inf
        for event in self.events:
            if event["event"] in ("sweep", "resume"):
                total += max(0.0, last - began)
                began = event.get("began", event["time"])
            last = event["time"]
        return total + max(0.0, last - began)

    @property
    def search_ended(self) -> str | None:
        """Why the search ended, ``finished`` or ``budget``; ``None`` if it has not."""
        return next((event["reason"] for event in self.events if event["event"] == "searched"), None)

    @property
    def trials_done(self) -> int:
        """Trials that have ended."""
        return self._count("end")

    @property
    def trials_left(self) -> int:
        """Trials that were begun and have not ended."""
        return self._count("trial") - self.trials_done

    @property
    def has_result(self) -> bool:
        """Some trial came to a result, so that the final has somebody to compare."""
        return any(event["event"] == "rung" and event["value"] is not None for event in self.events)

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """What lanes answered in the final, by job, where it was done."""
        found = {event["job"]: _answer(event["answer"]) for event in self.events if event["event"] == "answer"}
        return {job: answer for job, answer in found.items() if answer.status == "done"}

    @property
    def registered(self) -> dict[str, Event]:
        """The ``registered`` events, by task."""
        return {event["task"]: event for event in self.events if event["event"] == "registered"}

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        close = ending(self.events)
        ended = close is not None and close["reason"] in ("finished", "budget")
        return ended and set(self.registered) >= set(self.description.get("tasks", ()))

    def _count(self, kind: str) -> int:
        return len([event for event in self.events if event["event"] == kind])


def _answer(fields: Mapping[str, Any]) -> Answer:
    """Read back; what was not finite was written as null."""
    numbers = {name: _numbers(fields[name].items()) for name in ("metrics", "validation", "measurements")}
    return Answer(**{**fields, **numbers})


def _numbers(items: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in items}
