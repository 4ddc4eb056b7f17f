"""A sweep on simulated lanes: the real search core, the real table of leases, and a queue of events instead of time.

The lanes and their work outlive the driver, as real lanes do: after a driver was lost, the same simulation continues
with the search that replaces it, and every answer arrives when it would have arrived.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from orchestrator.common.trial_types import Ending, Job, TrialKey
from orchestrator.lanes.leases import LeaseTable, dead_answer
from orchestrator.search.plans import Decision, Proposal
from orchestrator.search.progress import NOISE_MEASUREMENT
from orchestrator.simulation.curves import Curves
from orchestrator.simulation.fleet import Fleet

Kind = Literal["answer", "loss", "silence", "return"]


class Searcher(Protocol):
    """The methods of a search that a simulation calls; the search core and all policies in benchmarks have them."""

    def ask(self) -> Proposal | None:
        """Start or continue a trial; ``None`` if there is no work now."""

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        """Record a result and decide about its trial."""

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """End a trial."""


class Clock:
    """Simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


class Simulation:
    """Lanes that train the trials of a search.

    Args:
        curves: The trials' scores and seconds.
        rungs: Optimizer steps at which trials report.
        fleet: The lanes.
        clock: The clock, which the simulation moves; the search and its journal must have the same one.
    """

    def __init__(self, curves: Curves, rungs: Sequence[int], fleet: Fleet, clock: Clock) -> None:
        self._curves = curves
        self._rungs = tuple(rungs)
        self._fleet = fleet
        self._clock = clock
        self._leases = LeaseTable(heartbeat_timeout_s=fleet.patience)
        self._factors = [fleet.factor(lane) for lane in fleet.lanes]
        self._incarnations = dict.fromkeys(fleet.lanes, 0)
        self._idle: dict[int, None] = {}
        self._jobs: dict[TrialKey, Job] = {}
        self._failed: list[Job] = []
        self._events: list[tuple[float, int, Kind, tuple[int, int, Job | None]]] = []
        self._count = 0
        self.lost = 0
        """Number of pieces of work that were lost with their lanes."""
        for lane in fleet.lanes:
            self._add_lane(lane)
        for node in range(fleet.nodes):
            self._schedule_loss(node, 0)

    @property
    def now(self) -> float:
        """Simulated seconds since the start."""
        return self._clock.now

    def run(self, search: Searcher, running: Sequence[TrialKey] = ()) -> None:
        """Work until the search has no more work.

        Errors of the search are raised to the caller, and the simulation can continue from there with another search.

        Args:
            search: The search.
            running: The trials that were running when the search was restored from its journal.
        """
        for _ in running:
            proposal = search.ask()
            if proposal and proposal.key not in self._jobs:
                self._submit(proposal)
        self._end_failed(search)
        self._assign_jobs(search)
        while self._jobs and self._events:
            self._clock.now = self._events[0][0]
            self._handle(search)
            heapq.heappop(self._events)  # only now, so that an event that the search did not survive happens again
            self._end_failed(search)
            self._assign_jobs(search)

    def _handle(self, search: Searcher) -> None:
        _, _, kind, (index, count, job) = self._events[0]
        match kind:
            case "answer":
                assert job is not None
                self._answer(search, index, count, job)
            case "loss":
                self._lose_node(index, count)
            case "silence":
                self._expire_leases()
            case "return":
                for lane in self._fleet.lanes_of(index):
                    self._add_lane(lane)

    def _answer(self, search: Searcher, lane: int, incarnation: int, job: Job) -> None:
        if incarnation != self._incarnations[lane]:
            return  # the lane died while it trained this job
        curve = self._curves.of(job.trial, job.params)
        seconds = curve.between(job.start, job.stop) * self._factors[lane]
        error = curve.standard_errors.get(job.stop)
        measurements = {} if error is None else {NOISE_MEASUREMENT: error}
        decision = search.report(job.trial, job.stop, curve.scores[job.stop], seconds, {}, measurements)
        self._leases.complete(lane, str(incarnation), job.id)
        self._idle[lane] = None
        del self._jobs[job.trial]
        if decision is Decision.CONTINUE:
            self._submit(Proposal(job.trial, job.params, job.seed, job.stop))

    def _submit(self, proposal: Proposal) -> None:
        stop = next(rung for rung in self._rungs if rung > proposal.start)
        job = self._jobs[proposal.key] = Job(
            trial=proposal.key,
            params=proposal.params,
            seed=proposal.seed,
            start=proposal.start,
            stop=stop,
            total=self._rungs[-1],
        )
        self._leases.submit(job)

    def _assign_jobs(self, search: Searcher) -> None:
        """Give every idle lane a waiting job, or a new one of the search if none waits."""
        for lane in list(self._idle):
            if not self._leases.waiting():
                proposal = search.ask()
                if proposal is None:
                    return
                self._submit(proposal)
            self._start_job(lane)

    def _start_job(self, lane: int) -> None:
        job = self._leases.take(lane, str(self._incarnations[lane]), self.now)
        if job is not None:
            del self._idle[lane]
            curve = self._curves.of(job.trial, job.params)
            seconds = curve.between(job.start, job.stop) * self._factors[lane]
            self._schedule(seconds, "answer", (lane, self._incarnations[lane], job))

    def _lose_node(self, node: int, count: int) -> None:
        """Stop the heartbeats of a node's lanes."""
        held = self._leases.lanes()
        for lane in self._fleet.lanes_of(node):
            self._idle.pop(lane, None)
            self.lost += len(held.get(lane, ()))
            self._incarnations[lane] += 1
        self._schedule(min(self._fleet.seconds_away, self._fleet.patience), "silence", (node, 0, None))
        self._schedule(self._fleet.seconds_away, "return", (node, 0, None))
        self._schedule_loss(node, count + 1)

    def _expire_leases(self) -> None:
        """Record the heartbeats of living lanes, and give up lanes without one for too long."""
        for lane, incarnation in self._incarnations.items():
            self._leases.heartbeat(lane, str(incarnation), self.now)
        self._failed += self._leases.expire(self.now)

    def _add_lane(self, lane: int) -> None:
        self._failed += self._leases.join(lane, str(self._incarnations[lane]), self.now)
        self._idle[lane] = None

    def _end_failed(self, search: Searcher) -> None:
        while self._failed:
            job = self._failed[0]
            search.finish(job.trial, "failed", dead_answer(job, self._leases.death_limit).reason)
            self._jobs.pop(job.trial, None)
            self._failed.pop(0)

    def _schedule_loss(self, node: int, count: int) -> None:
        away = self._fleet.seconds_away if count else 0.0
        seconds = away + self._fleet.next_loss(node, count)
        if math.isfinite(seconds):
            self._schedule(seconds, "loss", (node, count, None))

    def _schedule(self, seconds: float, kind: Kind, details: tuple[int, int, Job | None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, kind, details))
