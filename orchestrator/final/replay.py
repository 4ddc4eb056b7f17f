"""What a resumed sweep does not do a second time: jobs of the final that were done, and what was said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job
from orchestrator.final.candidates import TEST_FILE
from orchestrator.search.plans import EventLog

Each = Callable[[Sequence[Job]], Iterator[tuple[Job, Answer]]]
_NAMES = {"test": ("trial", "role", "seed"), "selection": ("task",), "selection_overall": ()}


class CachedJobRunner:
    """Has jobs of the final done, writes every answer down as it comes, and asks nobody for what is known.

    Args:
        each: has jobs done.
        known: answers by job.
        storage: the sweep's folder; an answer whose predictions are gone is not known.
        journal: gets an ``answer`` event for each job that was done.
    """

    def __init__(self, each: Each, known: Mapping[str, Answer], storage: Storage, journal: EventLog) -> None:
        self._each, self._storage, self._journal = each, storage, journal
        self._known = dict(known)

    def __call__(self, jobs: list[Job]) -> list[Answer]:
        """The answers, in the order of the jobs."""
        answers = {job.id: self._known[job.id] for job in jobs if self._is_known(job)}
        for job, answer in self._each([job for job in jobs if job.id not in answers]):
            answers[job.id] = answer
            if answer.status != "cancelled":
                self._journal.append("answer", job=job.id, trial=str(job.trial), answer=answer.to_dict())
        return [answers[job.id] for job in jobs]

    def _is_known(self, job: Job) -> bool:
        answer = self._known.get(job.id)
        return answer is not None and self._storage.exists(f"{answer.checkpoint}/{TEST_FILE}")


class DedupingJournal:
    """A journal that is told again what it knows, and writes down only what is new.

    Args:
        journal: that gets what is new.
        saved: the events that it has.
    """

    def __init__(self, journal: EventLog, saved: Iterable[Mapping[str, Any]]) -> None:
        self._journal = journal
        self._told = {_name(event["event"], event) for event in saved if event["event"] in _NAMES}

    def append(self, event: str, **fields: Any) -> None:
        """Write one event, unless the journal has it."""
        if event not in _NAMES or _name(event, fields) not in self._told:
            self._journal.append(event, **fields)


def _name(event: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells an event from others of its kind."""
    return event, *(fields[field] for field in _NAMES[event])
