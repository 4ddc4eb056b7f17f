"""Who works on what: a table of jobs and leases, without Ray in it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from orchestrator.common.trial_types import Answer, Job


@dataclass
class _Entry:
    job: Job
    deaths: int = 0


@dataclass
class _Lane:
    incarnation: str
    message: float
    held: dict[str, _Entry] = field(default_factory=dict)


@dataclass
class LeaseTable:
    """Jobs wait here, are leased to lanes, and come back when a lane dies.

    A lane that starts again joins under a new incarnation; whatever its former life held, or was about to be handed,
    goes back to the front of the queue. A job that has seen a death is leased alone, so that a second death names
    the culprit.

    Args:
        death_limit: so many deaths of its lane fail a job.
        patience: seconds without a heartbeat after which a lane counts as dead.
    """

    death_limit: int = 2
    patience: float = 60.0
    _queue: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    _lanes: dict[int, _Lane] = field(default_factory=dict)
    _last_lane: dict[str, int] = field(default_factory=dict)

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        self._queue[job.id] = _Entry(job)

    def join(self, lane: int, incarnation: str, now: float) -> list[Job]:
        """Begin a lane's new life. Returns the jobs that have now failed for good."""
        failed = self._bury(lane)
        self._lanes[lane] = _Lane(incarnation, now)
        return failed

    def expire(self, now: float) -> list[Job]:
        """Give up lanes that have been silent for too long. Returns the jobs that have now failed for good."""
        silent = [lane for lane, life in self._lanes.items() if life.held and now - life.message > self.patience]
        return [job for lane in silent for job in self._bury(lane)]

    def heartbeat(self, lane: int, incarnation: str, now: float) -> set[str]:
        """Renew a lane's leases. Returns the ids of those it still has."""
        if not self.is_current(lane, incarnation):
            return set()
        self._lanes[lane].message = now
        return set(self._lanes[lane].held)

    def take(self, lane: int, incarnation: str, now: float) -> Job | None:
        """Lease the best waiting job to a lane: one that it worked on before, else the one that waits longest."""
        if not self.is_current(lane, incarnation):
            return None
        life = self._lanes[lane]
        life.message = now
        if any(entry.deaths for entry in life.held.values()):
            return None
        if life.held and any(entry.deaths for entry in self._queue.values()):
            return None  # runs empty, so that what must be leased alone gets its turn
        if not self._queue:
            return None
        entry = min(self._queue.values(), key=lambda e: self._last_lane.get(str(e.job.trial)) != lane)
        del self._queue[entry.job.id]
        life.held[entry.job.id] = entry
        self._last_lane[str(entry.job.trial)] = lane
        return entry.job

    def complete(self, lane: int, incarnation: str, job_id: str) -> bool:
        """Whether this answer counts: it does not from a life that has ended, nor twice."""
        return self.is_current(lane, incarnation) and self._lanes[lane].held.pop(job_id, None) is not None

    def cancel(self) -> list[Job]:
        """Forget every job, waiting or leased; their lanes learn it with the next heartbeat."""
        jobs = [entry.job for entry in self._queue.values()]
        self._queue.clear()
        for life in self._lanes.values():
            jobs += [entry.job for entry in life.held.values()]
            life.held.clear()
        return jobs

    def lanes(self) -> dict[int, list[Job]]:
        """What each living lane holds."""
        return {lane: [entry.job for entry in life.held.values()] for lane, life in sorted(self._lanes.items())}

    def waiting(self) -> int:
        """How many jobs no lane has yet."""
        return len(self._queue)

    def is_current(self, lane: int, incarnation: str) -> bool:
        """Whether this is the lane's present life."""
        return lane in self._lanes and self._lanes[lane].incarnation == incarnation

    def _bury(self, lane: int) -> list[Job]:
        life = self._lanes.pop(lane, None)
        failed = []
        for entry in reversed(life.held.values() if life else ()):
            entry.deaths += 1
            if entry.deaths >= self.death_limit:
                failed.append(entry.job)
            else:
                self._queue[entry.job.id] = entry
                self._queue.move_to_end(entry.job.id, last=False)
        return failed


def dead_answer(job: Job, death_limit: int) -> Answer:
    """What is said of a job whose lanes keep dying."""
    return Answer(status="failed", step=job.start, reason=f"its lane died {death_limit} times while it trained")
