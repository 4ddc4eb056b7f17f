"""Notice that a lane's work hangs: which silence is too long, without processes and without a clock of its own.

A trial that hangs raises nothing, and the heartbeat has a thread of its own. But every pass through the backbone is a
sign of life, and so is every end of a step, an evaluation or a file. What was heard of a trial before tells how long
the next silence may last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum


class Work(Enum):
    """What a lane does with a trial that runs code of its method."""

    ATTACH = "attaching"
    TRAIN = "training"
    SCORE_VALIDATION = "scoring validation"
    SCORE_TEST = "scoring test"
    MEASURE = "measuring"
    SAVE = "saving"

    @classmethod
    def scoring(cls, split: str) -> Work:
        """Return the work of scoring a split."""
        return cls(f"scoring {split}")


@dataclass(frozen=True)
class HangLimits:
    """How long nothing may be heard of a trial.

    Args:
        least_s: seconds that any silence may last.
        factor: what the longest silence of the same work before is multiplied by.
        first_s: seconds that a silence may last where none is known, in a first step for instance: libraries load.
    """

    least_s: float = 60.0
    factor: float = 10.0
    first_s: float = 900.0

    def seconds(self, before: Sequence[float | None]) -> float:
        """Return how long a silence may last.

        Args:
            before: the longest silence in the same work before of each trial at work; ``None`` where it is unknown.
        """
        known = [seconds for seconds in before if seconds is not None]
        least_s = self.least_s if len(known) == len(before) else self.first_s
        return max(least_s, self.factor * sum(known))


@dataclass(frozen=True)
class Subject:
    """A trial at work.

    Args:
        name: name of its training.
        task: its task.
        step: the step that it is at, from 1.
        step_s: seconds that its steps took so far, also those in other processes; ``None`` before the first.
    """

    name: str
    task: str
    step: int
    step_s: float | None = None


@dataclass(frozen=True)
class Hang:
    """Work in which nothing has happened for too long.

    Args:
        work: the work.
        subjects: the trials at work, several in a pack.
        seconds: how long nothing has happened.
    """

    work: Work
    subjects: tuple[Subject, ...]
    seconds: float

    @property
    def reason(self) -> str:
        """What the trial fails with that hangs alone."""
        steps = "/".join(map(str, sorted({subject.step for subject in self.subjects})))
        return f"hung at step {steps}, {self.work.value}: nothing happened for {self.seconds:.0f} s"

    def __str__(self) -> str:
        return f"{', '.join(subject.name for subject in self.subjects)} {self.reason}"


@dataclass(frozen=True)
class _Activity:
    work: Work
    subjects: tuple[Subject, ...]
    limit_s: float


class StepWatch:
    """The silences of a lane's trials, and whether the present one is too long.

    The thread that works calls :meth:`during` and :meth:`progress`, and another one calls :meth:`tick` regularly. No
    lock is needed: each attribute has one writer.

    Time in which the other thread did not run either does not count: the process was stopped, or the whole machine.

    Args:
        limits: how long a silence may last.
        interval_s: seconds between two ticks.
        clock: function that returns seconds from any origin.
    """

    def __init__(
        self,
        limits: HangLimits | None = None,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval_s = interval_s
        self._limits, self._clock = limits or HangLimits(), clock
        # Of the thread that works:
        self._activity: _Activity | None = None
        self._signs, self._last_sign, self._longest_now = 0, 0.0, 0.0
        self._longest: dict[tuple[str, Work], float] = {}
        # Of the thread that ticks:
        self._ticked_at, self._signs_seen, self._silence_s = clock(), 0, 0.0

    @contextmanager
    def during(self, work: Work, subjects: Sequence[Subject]) -> Iterator[None]:
        """Watch work with trials, from its begin to its end."""
        limit_s = self._limits.seconds([self._before(subject, work) for subject in subjects])
        self._last_sign, self._longest_now = self._clock(), 0.0
        self._signs += 1
        self._activity = _Activity(work, tuple(subjects), limit_s)
        try:
            yield
        finally:
            self.progress()
            self._activity = None
            for name in {name for subject in subjects for name in (subject.name, subject.task)}:
                self._longest[name, work] = max(self._longest.get((name, work), 0.0), self._longest_now)

    def progress(self) -> None:
        """Record a sign of life."""
        now = self._clock()
        self._longest_now = max(self._longest_now, now - self._last_sign)
        self._last_sign = now
        self._signs += 1

    def tick(self) -> Hang | None:
        """Return what hangs, if anything does. The caller waits for ``interval_s`` between two calls."""
        now = self._clock()
        passed = min(now - self._ticked_at, 2 * self.interval_s)
        self._ticked_at = now
        activity, signs = self._activity, self._signs
        if activity is None or signs != self._signs_seen:
            self._signs_seen, self._silence_s = signs, 0.0
            return None
        self._silence_s += passed
        if self._silence_s <= activity.limit_s:
            return None
        return Hang(activity.work, activity.subjects, self._silence_s)

    def _before(self, subject: Subject, work: Work) -> float | None:
        """Return the longest silence before.

        The batches of a split are the same for all trials of a task, so that a trial that was never scored is compared
        with others. Steps and files of different trials are not alike.
        """
        own = self._longest.get((subject.name, work))
        if work is Work.TRAIN:
            return own if subject.step_s is None else max(own or 0.0, subject.step_s)
        if work in (Work.SCORE_VALIDATION, Work.SCORE_TEST) and own is None:
            return self._longest.get((subject.task, work))
        return own
