"""Skip what earlier attempts at a final have done: answered jobs, and events that are in the journal already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job
from orchestrator.final.progress import FinalProgress
from orchestrator.final.results import TEST_FILE
from orchestrator.search.plans import EventLog

RunEach = Callable[[Sequence[Job]], Iterator[tuple[Job, Answer]]]
_IDENTITY = {"test": ("trial", "role", "seed"), "selection": ("task",), "samples": ("task",), "selection_overall": ()}
"""Fields that identify an event among those of its kind."""


class CachedJobRunner:
    """Runs jobs of the final that have no answer yet, and records each answer as it arrives.

    Args:
        each: function that runs jobs and yields their answers as they arrive.
        answers: answers of earlier attempts by job.
        storage: storage of the sweep's folder; an answer whose predictions are missing there does not count.
        journal: receives an ``answer`` event for each job that was run.
        progress: learns of every job and every answer.
    """

    def __init__(
        self,
        each: RunEach,
        answers: Mapping[str, Answer],
        storage: Storage,
        journal: EventLog,
        progress: FinalProgress,
    ) -> None:
        self._each, self._storage, self._journal, self._progress = each, storage, journal, progress
        self._answers = dict(answers)

    def __call__(self, jobs: list[Job]) -> list[Answer]:
        """Return the answers, in the order of the jobs."""
        answers = {job.id: self._answers[job.id] for job in jobs if self._is_answered(job)}
        self._progress.add(jobs, answers)
        for job, answer in self._each([job for job in jobs if job.id not in answers]):
            answers[job.id] = answer
            self._progress.finish(job)
            if answer.status != "cancelled":
                self._journal.append("answer", job=job.id, trial=str(job.trial), answer=answer.to_dict())
        return [answers[job.id] for job in jobs]

    def _is_answered(self, job: Job) -> bool:
        answer = self._answers.get(job.id)
        return answer is not None and self._storage.exists(f"{answer.checkpoint}/{TEST_FILE}")


class DedupingJournal:
    """A journal that leaves out events of the final that it has already.

    Args:
        journal: receives the new events.
        saved: events that it has.
    """

    def __init__(self, journal: EventLog, saved: Iterable[Mapping[str, Any]]) -> None:
        self._journal = journal
        self._saved = {_identity(event["event"], event) for event in saved if event["event"] in _IDENTITY}

    def append(self, event: str, **fields: Any) -> None:
        """Write one event, unless the journal has it."""
        if event not in _IDENTITY or _identity(event, fields) not in self._saved:
            self._journal.append(event, **fields)


def _identity(event: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return event, *(fields[name] for name in _IDENTITY[event])
