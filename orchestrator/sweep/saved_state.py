"""The state of a sweep as its journal records it, from which a resumed sweep continues."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from orchestrator.common.trial_types import Answer
from orchestrator.journal.events import Event, Journal, ending
from orchestrator.journal.folders import JOURNAL


@dataclass(frozen=True)
class SavedSweep:
    """The state of a sweep as earlier drivers recorded it; without events for a new sweep.

    Each driver that worked on the sweep is an attempt: the first wrote the ``sweep`` event, each later one ``resume``.
    A finished sweep that was extended has an ``extend`` event; what ended before it has begun anew.

    Args:
        sweep: the sweep's name.
        folder: folder of its journal.
        events: all events of the journal.
        storage: URI of the object store that it was found in; empty where its configuration says which.
        is_extended_now: whether the last event is an ``extend`` that the journal does not have yet.
    """

    sweep: str
    folder: Path
    events: tuple[Event, ...] = ()
    storage: str = ""
    is_extended_now: bool = False

    @classmethod
    def of(cls, folder: Path, storage: str = "") -> Self:
        """Read the journal in a sweep's folder."""
        return cls(folder.name, folder, tuple(Journal.read(folder / JOURNAL)), storage)

    @cached_property
    def description(self) -> Event:
        """The ``sweep`` event; empty if no attempt has written it yet."""
        return next((event for event in self.events if event["event"] == "sweep"), {})

    def extended(self, trials: int) -> Self:
        """Return the state of a finished sweep that goes on with more trials.

        The sweep's own limits are reached: what counts is the number of trials from then on.
        """
        limit = self._count("trial") + trials
        event = {"event": "extend", "trials": trials, "limit": limit, "time": self.events[-1]["time"]}
        return replace(self, events=(*self.events, event), is_extended_now=True)

    @property
    def is_exhausted(self) -> bool:
        """Whether no method has a configuration left that was not tried, as far as the journal says."""
        searches = [event for event in self.events if event["event"] == "searched"]
        return bool(searches) and searches[-1].get("next") == {}

    @property
    def extension(self) -> Event | None:
        """The last ``extend`` event; ``None`` for a sweep that was never extended."""
        return next((event for event in reversed(self.events) if event["event"] == "extend"), None)

    @property
    def look(self) -> int:
        """Which look at the test split the sweep's final is, from 1."""
        return 1 + self._count("extend")

    @cached_property
    def latest(self) -> tuple[Event, ...]:
        """The events since the sweep was last extended; all events of one that never was."""
        places = [place for place, event in enumerate(self.events) if event["event"] == "extend"]
        return self.events[places[-1] + 1 :] if places else self.events

    @cached_property
    def recorded_final(self) -> tuple[Event, ...]:
        """The events that need not be written again: those of this look, and what was scored on the test split."""
        earlier = self.events[: len(self.events) - len(self.latest)]
        return (*(event for event in earlier if event["event"] == "test"), *self.latest)

    @property
    def earlier_finalists(self) -> dict[str, set[str]]:
        """By task, the methods that were finalists before the sweep was extended: they are in every later final."""
        earlier = self.events[: len(self.events) - len(self.latest)]
        finalists: dict[str, set[str]] = {}
        for event in earlier:
            if event["event"] == "selection":
                finalists.setdefault(event["task"], set()).update(result["method"] for result in event["finalists"])
        return finalists

    @property
    def attempts(self) -> int:
        """Number of drivers that have worked on the sweep."""
        return self._count("sweep") + self._count("resume")

    @cached_property
    def wall_seconds(self) -> float:
        """Wall time of all attempts, in seconds: each from its driver's start to its last event."""
        total, began, last = 0.0, math.inf, -math.inf
        for event in self.events:
            if event["event"] in ("sweep", "resume"):
                total += max(0.0, last - began)
                began = event.get("began", event["time"])
            last = event["time"]
        return total + max(0.0, last - began)

    @property
    def search_ended(self) -> str | None:
        """Why the search ended, ``finished`` or ``budget``; ``None`` if it has not ended."""
        return next((event["reason"] for event in self.latest if event["event"] == "searched"), None)

    @property
    def trials_done(self) -> int:
        """Number of trials that have ended."""
        return self._count("end")

    @property
    def trials_left(self) -> int:
        """Number of trials that were started and have not ended."""
        return self._count("trial") - self.trials_done

    @property
    def has_result(self) -> bool:
        """Whether any trial reached a rung with a finite score, so that the final has a candidate."""
        return any(event["event"] == "rung" and event["value"] is not None for event in self.events)

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """Answers of the final's jobs that are done, by job."""
        answers = {event["job"]: _answer(event["answer"]) for event in self.events if event["event"] == "answer"}
        return {job: answer for job, answer in answers.items() if answer.status == "done"}

    @property
    def registered(self) -> dict[str, Event]:
        """The ``registered`` events, by task."""
        return {event["task"]: event for event in self.latest if event["event"] == "registered"}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: the sweep ended, and all its tasks are registered."""
        close = ending(self.events)
        ended = close is not None and close["reason"] in ("finished", "budget")
        tasks = set(self.description.get("tasks", ()))
        return ended and set(self.registered) >= tasks and not any(map(self.unregistered_ties, tasks))

    def unregistered_ties(self, task: str) -> set[str]:
        """Return the methods of a registered task that are tied with the recommended one, and are not registered."""
        registered = self.registered.get(task, {}).get("methods")
        if registered is None:  # release 0.1 does not say
            return set()
        selections = [event for event in self.latest if event["event"] == "selection" and event["task"] == task]
        return set(selections[-1]["tied"] if selections else ()) - set(registered)

    @property
    def can_resume(self) -> bool:
        """Whether a resumed sweep would have something to go on with."""
        return bool(self.description) and not self.finished and (self.search_ended is None or self.has_result)

    def _count(self, kind: str) -> int:
        return len([event for event in self.events if event["event"] == kind])


def _answer(fields: Mapping[str, Any]) -> Answer:
    """Return an answer from JSON, where numbers that were not finite are null."""
    numbers = {name: _numbers(fields[name].items()) for name in ("metrics", "validation", "measurements")}
    return Answer(**{**fields, **numbers})


def _numbers(items: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in items}
