"""How far the final is: retrainings and scorings by method, and the time that is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.common.trial_types import Job, TrialKey, TrialRecord

MIN_FRACTION = 0.1
"""Fraction of the work that must be done before the rest is estimated."""


@dataclass(frozen=True)
class MethodProgress:
    """How many jobs of a method are done, of those that are known so far.

    Args:
        retrained: retrainings that are done, each scored on the test split.
        retrainings: retrainings in all.
        scored: trials that are scored on the test split without being retrained.
        scorings: such trials in all.
    """

    retrained: int
    retrainings: int
    scored: int
    scorings: int


@dataclass(frozen=True)
class FinalStatus:
    """The status of the final at one moment.

    Args:
        methods: progress by study.
        seconds_left: estimated wall time of the jobs that are known so far, in seconds; ``None`` while too little is
            done.
    """

    methods: Mapping[str, MethodProgress] = field(default_factory=dict)
    seconds_left: float | None = None


class FinalProgress:
    """Follows the jobs of the final.

    A job's share of the work is its optimizer steps, times the lane time that a step of its trial took in the search.

    Args:
        records: all trials of the search.
        clock: monotonic time in seconds.
    """

    def __init__(self, records: Iterable[TrialRecord], clock: Callable[[], float] = time.monotonic) -> None:
        self._step_seconds = {record.key: record.lane_seconds / max(record.step, 1) for record in records}
        self._clock, self._began = clock, clock()
        self._jobs: dict[str, Job] = {}
        self._done: set[str] = set()
        self._skipped: set[str] = set()

    def add(self, jobs: Iterable[Job], answered: Iterable[str]) -> None:
        """Add jobs; ``answered`` are the ids of those that an earlier attempt has done."""
        self._jobs |= {job.id: job for job in jobs}
        self._skipped |= set(answered)

    def finish(self, job: Job) -> None:
        """Count a job as done."""
        self._done.add(job.id)

    def status(self, working: Mapping[str, int]) -> FinalStatus:
        """Return the status.

        Args:
            working: steps that each training under way has done, by :attr:`Job.name`.
        """
        jobs, done = dict(self._jobs), self._done | self._skipped  # a thread may add more meanwhile
        every, ended = (
            Counter((job.trial.study, job.retraining is not None) for job in chosen)
            for chosen in (jobs.values(), [job for name, job in jobs.items() if name in done])
        )
        methods = {
            study: MethodProgress(ended[study, True], every[study, True], ended[study, False], every[study, False])
            for study in dict.fromkeys(study for study, _ in every)
        }
        return FinalStatus(methods, self._seconds_left(jobs, working))

    def _seconds_left(self, jobs: Mapping[str, Job], working: Mapping[str, int]) -> float | None:
        work = done = 0.0
        for name, job in jobs.items():
            if name in self._skipped:
                continue
            steps = max(job.stop - job.start, 1)
            steps_done = steps if name in self._done else min(max(working.get(job.name, 0) - job.start, 0), steps)
            seconds = self._seconds_per_step(job.trial)
            work += steps * seconds
            done += steps_done * seconds
        if not work or done < MIN_FRACTION * work:
            return None
        return (self._clock() - self._began) * (work - done) / done

    def _seconds_per_step(self, trial: TrialKey) -> float:
        return self._step_seconds.get(trial) or 1.0
