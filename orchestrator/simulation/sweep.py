"""A sweep on simulated lanes: the real Search core, the real table of leases, and a queue of events instead of time.

The lanes and their work outlive the driver, as real ones do: after a driver was lost, the same simulation goes on with
the search that takes its place, and every answer arrives when it would have arrived.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from orchestrator.common.trial_types import Ending, Job, TrialKey
from orchestrator.lanes.leases import LeaseTable, dead_answer
from orchestrator.search.plans import Decision, Proposal
from orchestrator.search.progress import NOISE
from orchestrator.simulation.curves import Curves
from orchestrator.simulation.fleet import Fleet

Kind = Literal["answer", "loss", "silence", "return"]


class Searcher(Protocol):
    """What a simulation needs of a search: the Search core has it, and so has every policy that it is compared with."""

    def ask(self) -> Proposal | None:
        """Start a trial, or go on with one."""

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        """Take a result and decide."""

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """End a trial."""


class Clock:
    """Simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Simulation:
    """Lanes that work on what a search asks for.

    Args:
        curves: what training shows and takes.
        rungs: optimizer steps at which trials report.
        fleet: the lanes.
        clock: is moved by the simulation; give the same to the search and its journal.
    """

    def __init__(self, curves: Curves, rungs: Sequence[int], fleet: Fleet, clock: Clock) -> None:
        self._curves = curves
        self._rungs = tuple(rungs)
        self._fleet = fleet
        self._clock = clock
        self._leases = LeaseTable(patience=fleet.patience)
        self._factors = [fleet.factor(lane) for lane in fleet.lanes]
        self._lives = dict.fromkeys(fleet.lanes, 0)
        self._idle: dict[int, None] = {}
        self._jobs: dict[TrialKey, Job] = {}
        self._failed: list[Job] = []
        self._events: list[tuple[float, int, Kind, tuple[int, int, Job | None]]] = []
        self._count = 0
        self.lost = 0
        """Pieces of work that died with their lanes."""
        for lane in fleet.lanes:
            self._join(lane)
        for node in range(fleet.nodes):
            self._plan_loss(node, 0)

    @property
    def now(self) -> float:
        """Simulated seconds since the start."""
        return self._clock.now

    def run(self, search: Searcher, running: Sequence[TrialKey] = ()) -> None:
        """Work until the search has nothing more to do.

        Whatever the search raises comes through, and the simulation can go on from there with another search.

        Args:
            search: is asked and told.
            running: the trials that were under way when the search was brought back from its journal.
        """
        for _ in running:
            proposal = search.ask()
            if proposal and proposal.key not in self._jobs:
                self._submit(proposal)
        self._end_failed(search)
        self._give_out(search)
        while self._jobs and self._events:
            self._clock.now = self._events[0][0]
            self._handle(search)
            heapq.heappop(self._events)  # only now: what the search did not survive happens again
            self._end_failed(search)
            self._give_out(search)

    def _handle(self, search: Searcher) -> None:
        _, _, kind, (place, count, job) = self._events[0]
        match kind:
            case "answer":
                assert job is not None
                self._answer(search, place, count, job)
            case "loss":
                self._lose(place, count)
            case "silence":
                self._notice()
            case "return":
                for lane in self._fleet.lanes_of(place):
                    self._join(lane)

    def _answer(self, search: Searcher, lane: int, life: int, job: Job) -> None:
        if life != self._lives[lane]:
            return  # the lane died over it
        curve = self._curves.of(job.trial, job.params)
        seconds = curve.between(job.start, job.stop) * self._factors[lane]
        error = curve.standard_errors.get(job.stop)
        measurements = {} if error is None else {NOISE: error}
        decision = search.report(job.trial, job.stop, curve.scores[job.stop], seconds, {}, measurements)
        self._leases.complete(lane, str(life), job.id)
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

    def _give_out(self, search: Searcher) -> None:
        """Every idle lane takes what waits; the search is asked where nothing does."""
        for lane in list(self._idle):
            if not self._leases.waiting():
                proposal = search.ask()
                if proposal is None:
                    return
                self._submit(proposal)
            self._take(lane)

    def _take(self, lane: int) -> None:
        job = self._leases.take(lane, str(self._lives[lane]), self.now)
        if job is not None:
            del self._idle[lane]
            curve = self._curves.of(job.trial, job.params)
            seconds = curve.between(job.start, job.stop) * self._factors[lane]
            self._plan(seconds, "answer", (lane, self._lives[lane], job))

    def _lose(self, node: int, count: int) -> None:
        """The lanes of a node fall silent."""
        held = self._leases.lanes()
        for lane in self._fleet.lanes_of(node):
            self._idle.pop(lane, None)
            self.lost += len(held.get(lane, ()))
            self._lives[lane] += 1
        self._plan(min(self._fleet.seconds_away, self._fleet.patience), "silence", (node, 0, None))
        self._plan(self._fleet.seconds_away, "return", (node, 0, None))
        self._plan_loss(node, count + 1)

    def _notice(self) -> None:
        """Lanes that live are heard; those that have been silent for too long are given up."""
        for lane, life in self._lives.items():
            self._leases.heartbeat(lane, str(life), self.now)
        self._failed += self._leases.expire(self.now)

    def _join(self, lane: int) -> None:
        self._failed += self._leases.join(lane, str(self._lives[lane]), self.now)
        self._idle[lane] = None

    def _end_failed(self, search: Searcher) -> None:
        while self._failed:
            job = self._failed[0]
            search.finish(job.trial, "failed", dead_answer(job, self._leases.death_limit).reason)
            self._jobs.pop(job.trial, None)
            self._failed.pop(0)

    def _plan_loss(self, node: int, count: int) -> None:
        away = self._fleet.seconds_away if count else 0.0
        seconds = away + self._fleet.next_loss(node, count)
        if math.isfinite(seconds):
            self._plan(seconds, "loss", (node, count, None))

    def _plan(self, seconds: float, kind: Kind, what: tuple[int, int, Job | None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, kind, what))
