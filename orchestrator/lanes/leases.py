"""Which lane works on which job: a table of jobs and leases, without Ray."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from orchestrator.common.trial_types import Answer, Job

REMEMBERED_TRIALS = 1_000
"""Trials whose last lane is known, whether or not they have ended: nobody tells the table of those that were stopped,
and a trial that so many others came after has long left its lane's memory."""


@dataclass
class _Entry:
    job: Job
    deaths: int = 0  # of its lane, with this job alone in it
    must_be_alone: bool = False


@dataclass
class _LaneLeases:
    incarnation: str
    last_heartbeat: float
    leaving: bool = False
    held: dict[str, _Entry] = field(default_factory=dict)


@dataclass
class LeaseTable:
    """A queue of jobs that are leased to lanes, and queued again when a lane dies.

    A lane that starts again joins under a new incarnation. Jobs that its former incarnation held, or was about to
    receive, return to the front of the queue. A job whose lane has died is then leased alone, and only a death alone
    counts against it: nobody knows which job of a pack causes a death.

    A lane that leaves, because its node is taken back, hands its jobs back. What it does not come to hand back returns
    to the queue when its process ends, and no death is counted.

    Args:
        death_limit: number of deaths of its lane, with the job alone in it, that fail a job.
        heartbeat_timeout_s: seconds without a heartbeat after which a lane is declared dead.
    """

    death_limit: int = 2
    heartbeat_timeout_s: float = 60.0
    _queue: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    _lanes: dict[int, _LaneLeases] = field(default_factory=dict)
    _last_lane: dict[str, int] = field(default_factory=dict)

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue."""
        self._queue[job.id] = _Entry(job)

    def join(self, lane: int, incarnation: str, now: float) -> list[Job]:
        """Register a new incarnation of a lane. Returns the jobs that fail for good by the death of the former one."""
        failed = self._release(lane)
        self._lanes[lane] = _LaneLeases(incarnation, now)
        return failed

    def leave(self, lane: int) -> list[Job]:
        """Remove a lane whose process has ended. Returns the jobs that fail for good by its death."""
        return self._release(lane)

    def expire(self, now: float) -> list[Job]:
        """Declare silent lanes that hold jobs dead. Returns the jobs that fail for good by that.

        A lane without jobs needs no heartbeat: nothing is lost with it.
        """
        dead = [
            lane
            for lane, leases in self._lanes.items()
            if leases.held and now - leases.last_heartbeat > self.heartbeat_timeout_s
        ]
        return [job for lane in dead for job in self._release(lane)]

    def heartbeat(self, lane: int, incarnation: str, now: float) -> set[str]:
        """Renew a lane's leases. Returns the ids of the jobs that it holds."""
        if not self.is_current(lane, incarnation):
            return set()
        self._lanes[lane].last_heartbeat = now
        return set(self._lanes[lane].held)

    def take(self, lane: int, incarnation: str, now: float) -> Job | None:
        """Lease a waiting job to a lane: one of a trial that it worked on last, else the one that waits longest.

        A job whose lane has died needs a lane of its own. While one waits, lanes take nothing more until they are
        empty; otherwise a full lane would always have a neighbour for it.
        """
        if not self.is_current(lane, incarnation):
            return None
        leases = self._lanes[lane]
        leases.last_heartbeat = now
        if any(entry.must_be_alone for entry in leases.held.values()):
            return None
        if leases.leaving:
            return None
        if leases.held and any(entry.must_be_alone for entry in self._queue.values()):
            return None
        if not self._queue:
            return None
        entry = min(self._queue.values(), key=lambda e: self._last_lane.get(str(e.job.trial)) != lane)
        del self._queue[entry.job.id]
        leases.held[entry.job.id] = entry
        self._remember(str(entry.job.trial), lane)
        return entry.job

    def complete(self, lane: int, incarnation: str, job_id: str) -> bool:
        """End a lease. Returns whether the answer counts: the first from the lane that holds the job."""
        entry = self._lanes[lane].held.pop(job_id, None) if self.is_current(lane, incarnation) else None
        return entry is not None

    def let_leave(self, lane: int) -> None:
        """Lease nothing more to a lane, which has to leave."""
        self._lanes[lane].leaving = True

    def is_leaving(self, lane: int, incarnation: str) -> bool:
        """Return whether a lane has to leave."""
        return self.is_current(lane, incarnation) and self._lanes[lane].leaving

    def hand_back(self, lane: int, incarnation: str, job_id: str, *, saved: bool) -> Job | None:
        """Queue a job of a lane that leaves again, before all others.

        Args:
            lane: number of the lane.
            incarnation: id of its incarnation.
            job_id: id of the job.
            saved: whether the lane has saved the job's partial state.

        Returns:
            The job; ``None`` if the lane did not hold it.
        """
        entry = self._lanes[lane].held.pop(job_id, None) if self.is_current(lane, incarnation) else None
        if entry is None:
            return None
        entry.job = replace(entry.job, has_partial_state=saved or entry.job.has_partial_state)
        self._queue_first(entry)
        return entry.job

    def cancel(self) -> list[Job]:
        """Remove and return every job, waiting or leased; lanes learn it at their next heartbeat."""
        jobs = [entry.job for entry in self._queue.values()]
        self._queue.clear()
        for leases in self._lanes.values():
            jobs += [entry.job for entry in leases.held.values()]
            leases.held.clear()
        return jobs

    def lanes(self) -> dict[int, list[Job]]:
        """Return the jobs that each living lane holds."""
        return {lane: [entry.job for entry in leases.held.values()] for lane, leases in sorted(self._lanes.items())}

    def waiting(self) -> int:
        """Return the number of jobs in the queue."""
        return len(self._queue)

    def is_current(self, lane: int, incarnation: str) -> bool:
        """Return whether this is the lane's present incarnation."""
        return lane in self._lanes and self._lanes[lane].incarnation == incarnation

    def _release(self, lane: int) -> list[Job]:
        """Queue the jobs of a dead lane again, in their order. Returns those that have reached the death limit."""
        if (leases := self._lanes.pop(lane, None)) is None:
            return []
        held, failed = list(leases.held.values()), []
        for entry in reversed(held):
            if not leases.leaving:
                entry.deaths += len(held) == 1
                entry.must_be_alone = True
            if entry.deaths >= self.death_limit:
                failed.append(entry.job)
            else:
                self._queue_first(entry)
        return failed

    def _remember(self, trial: str, lane: int) -> None:
        """Note the lane that works on a trial, as the latest entry; forget the oldest where there are too many."""
        self._last_lane.pop(trial, None)
        self._last_lane[trial] = lane
        if len(self._last_lane) > REMEMBERED_TRIALS:
            del self._last_lane[next(iter(self._last_lane))]

    def _queue_first(self, entry: _Entry) -> None:
        self._queue[entry.job.id] = entry
        self._queue.move_to_end(entry.job.id, last=False)


def dead_answer(job: Job, death_limit: int, reason: str = "") -> Answer:
    """Return the answer to a job whose lanes have died ``death_limit`` times; ``reason`` is that of the last death."""
    text = f"its lane died {death_limit} times while it trained"
    return Answer(status="failed", step=job.start, reason=f"{text}; last: {reason}" if reason else text)
