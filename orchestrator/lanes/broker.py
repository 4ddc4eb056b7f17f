"""The broker: an actor between Tune's proxies, which submit jobs, and the lanes, which do them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import ray

from orchestrator.common.trial_types import Answer, Job
from orchestrator.lanes.lane_starts import LaneStarts
from orchestrator.lanes.leases import LeaseTable, dead_answer
from orchestrator.lanes.preemption import MovedJob
from orchestrator.lanes.retirement import groups_to_retire

if TYPE_CHECKING:
    from orchestrator.lanes.setup import LaneSetup

LONG_POLL_TIMEOUT_S = 10.0
MOST_CALLS = 1_000_000
"""Calls that the actor serves at once: more than there ever are, as one that waits takes no thread."""


class Signal(Enum):
    """What a lane receives instead of a job."""

    RETIRE = "there is no more work"
    REJOIN = "the lane was declared dead; it may join again"
    LEAVE = "the lane's node is taken back; it hands its jobs back and ends"


@dataclass(frozen=True)
class LaneStatus:
    """A lane's report with each heartbeat, for the display.

    Args:
        nodes: ids of the nodes of its workers.
        pid: id of its process.
        device: device that it computes on, ``cpu`` or ``cuda``.
        dtype: dtype of frozen products, ``float32`` or ``bfloat16``.
        threads: number of processor threads that it computes with.
        gpu: name of its GPU, and versions of CUDA and cuBLAS; empty on a processor.
        working: steps done and steps in all of each training under way, by :attr:`Job.name`.
        busy: fraction of the time since its first job that it spent in steps and evaluation.
    """

    nodes: tuple[str, ...] = ()
    pid: int = 0
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    gpu: dict[str, str] = field(default_factory=dict)
    working: dict[str, tuple[int, int]] = field(default_factory=dict)
    busy: float = 0.0


@dataclass(frozen=True)
class HeartbeatReply:
    """The broker's answer to a heartbeat.

    Args:
        lost: ids of jobs that the lane works on and that are no longer leased to it.
        leave: whether the lane has to leave, as its node is taken back.
    """

    lost: frozenset[str] = frozenset()
    leave: bool = False


class Broker:
    """Leases jobs to lanes and returns their answers to the callers.

    All calls run in one thread, that of the event loop. Those that wait (``run``, ``take``, ``setup``) are coroutines,
    so that any number of callers can wait and ``done``, for which they wait, is served meanwhile. Between two ``await``
    nothing else runs, so that no lock is needed. Long polls end after ten seconds, for a caller that has died would
    otherwise be given a job later.

    Args:
        min_lanes: number of living lanes at which the first job is leased; later deaths do not stop the sweep.
        table: table of leases.
    """

    def __init__(self, min_lanes: int = 1, table: LeaseTable | None = None) -> None:
        self._table = table or LeaseTable()
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._changed = asyncio.Event()  # set at the next change, and replaced then
        self._setup: LaneSetup | None = None
        self._last_status: dict[int, LaneStatus] = {}  # of every lane that has joined; the table knows the living ones
        self._starts = LaneStarts()
        self._processes: dict[int, list[Any]] = {}  # of each lane: the placement groups of those that have started
        self._retired: set[int] = set()
        self._fault = ""
        self._draining: set[str] = set()  # nodes that are taken back
        self._moved: list[MovedJob] = []
        self._closed = False
        self._min_lanes, self._has_min_lanes = min_lanes, False

    async def run(self, job: Job) -> Answer:
        """Submit a job and wait until it is done, has failed, or was cancelled.

        A job that is open already is not submitted twice: its first caller has died, and another one waits in its
        place.
        """
        if self._closed:
            return Answer(status="cancelled", step=job.start)
        if job.id not in self._answers:
            self._answers[job.id] = asyncio.get_running_loop().create_future()
            self._table.submit(job)
            self._tell_waiting_calls()
        return await asyncio.shield(self._answers[job.id])

    def open(self, setup: LaneSetup) -> None:
        """Publish the setup that lanes wait for."""
        self._setup = setup
        self._tell_waiting_calls()

    def enter(self, lane: int, placement_group: Any) -> None:
        """Record that a process of a lane runs, in this placement group."""
        self._processes.setdefault(lane, []).append(placement_group)

    async def setup(self, lane: int) -> LaneSetup | Signal | None:
        """Return the setup for a lane that starts, or ``None`` if it has to wait longer than a long poll."""

        def pause() -> float:
            return self._starts.pause(lane, time.monotonic())

        if (pause_s := pause()) and not self._has_ended(lane):
            await self._wait_for(lambda: self._has_ended(lane), min(pause_s, LONG_POLL_TIMEOUT_S))
        else:
            await self._wait_for(lambda: self._setup or self._has_ended(lane), LONG_POLL_TIMEOUT_S)
        return Signal.RETIRE if self._has_ended(lane) else None if pause() else self._setup

    def join(self, lane: int, incarnation: str, status: LaneStatus) -> None:
        """Register a new incarnation of a lane; jobs of its former one are queued again."""
        self._fail(self._table.join(lane, incarnation, time.monotonic()))
        self._last_status[lane] = status
        self._let_lanes_leave()  # Ray Train may have replaced a worker of a node that is taken back
        # Once true, it stays true: a sweep that has started must not wait for a lane that died and is restarted.
        self._has_min_lanes |= len(self._table.lanes()) >= self._min_lanes
        self._tell_waiting_calls()

    def leave(self, lane: int, incarnation: str, reason: str) -> None:
        """Queue the jobs of an incarnation again that ends, by an error or because its node is taken back."""
        if self._table.is_current(lane, incarnation):
            self._leave(lane, reason)
        self._tell_waiting_calls()

    async def take(self, lane: int, incarnation: str, wait: bool) -> Job | Signal | None:
        """Lease a job to a lane.

        Args:
            lane: number of the lane.
            incarnation: id of its incarnation.
            wait: whether to wait for a job, for a lane that has no other.

        Returns:
            A job; ``None`` if there is none for this lane; or a :class:`Signal`.
        """
        jobs: list[Job] = []

        def is_over() -> bool:
            if not self._has_ended(lane) and self._has_min_lanes:
                job = self._table.take(lane, incarnation, time.monotonic())
                jobs.extend([job] if job else [])
            return self._has_ended(lane) or is_leaving() or bool(jobs)

        def is_leaving() -> bool:
            return self._table.is_leaving(lane, incarnation)

        if lane not in self._retired and not self._table.is_current(lane, incarnation):
            return Signal.REJOIN
        await self._wait_for(is_over, LONG_POLL_TIMEOUT_S if wait else 0.0)
        if jobs:
            return jobs[0]
        return Signal.RETIRE if self._has_ended(lane) else Signal.LEAVE if is_leaving() else None

    def done(self, lane: int, incarnation: str, job_id: str, answer: Answer) -> None:
        """Deliver a lane's answer; one from a former incarnation is ignored."""
        if self._table.complete(lane, incarnation, job_id):
            self._resolve(job_id, answer)
        self._tell_waiting_calls()

    def heartbeat(self, lane: int, incarnation: str, held: frozenset[str], status: LaneStatus) -> HeartbeatReply:
        """Renew a lane's leases.

        Args:
            lane: number of the lane.
            incarnation: id of its incarnation.
            held: ids of the jobs that it works on.
            status: its status.
        """
        if self._table.is_current(lane, incarnation):
            self._last_status[lane] = status
            if held:  # a lane of several workers can join before one of them fails
                self._starts.succeed(lane)
        lost = held - self._table.heartbeat(lane, incarnation, time.monotonic())
        return HeartbeatReply(lost, self._table.is_leaving(lane, incarnation))

    def drain(self, draining: Collection[str], lost: Collection[str]) -> list[MovedJob]:
        """Let the lanes of nodes that are taken back leave.

        Args:
            draining: ids of the nodes that are being taken back.
            lost: ids of those that are gone; what their lanes did not hand back is queued again.

        Returns:
            The jobs that have moved since the last call.
        """
        self._draining.update(draining)
        self._let_lanes_leave()
        for lane in self._lanes_on(lost):
            self._leave(lane)
        self._tell_waiting_calls()
        moved, self._moved = self._moved, []
        return moved

    def hand_back(self, lane: int, incarnation: str, job_id: str, step: int, saved: bool) -> None:
        """Queue a job of a lane that leaves again, to be continued by another.

        Args:
            lane: number of the lane.
            incarnation: id of its incarnation.
            job_id: id of the job.
            step: optimizer steps that are done and not lost.
            saved: whether they are in the job's partial state.
        """
        if job := self._table.hand_back(lane, incarnation, job_id, saved=saved):
            self._moved.append(MovedJob(lane, str(job.trial), job.name, step))
        self._tell_waiting_calls()

    def cancel(self) -> None:
        """Answer every open job with ``cancelled``; lanes drop their trials at the next heartbeat."""
        for job in self._table.cancel():
            self._resolve(job.id, Answer(status="cancelled", step=job.start))
        self._tell_waiting_calls()

    def report_failed_start(self, lane: int, reason: str) -> None:
        """Record that a lane could not start; Ray Train starts it again, which may not help."""
        # Ray Train has ended the lane's former incarnation, and ends this one with all of its workers.
        self._fail(self._table.leave(lane))
        self._starts.fail(lane, reason, time.monotonic())
        self._tell_waiting_calls()

    def given_up(self) -> dict[int, str]:
        """Return why each lane that starts no more could not start."""
        return self._starts.given_up()

    def retire(self, groups: Sequence[range], needed: int) -> list[range]:
        """Let groups of lanes end without which there are ``needed`` others, and one for each open job.

        Args:
            groups: numbers of the lanes of each group that has not ended.
            needed: number of lanes that are still needed.

        Returns:
            The groups that end now.
        """
        jobs = {lane: len(held) for lane, held in self._table.lanes().items()}
        retired = groups_to_retire(groups, jobs, max(needed, len(self._answers)))
        for lane in (lane for group in retired for lane in group):
            self._retired.add(lane)
            self._table.leave(lane)
        self._tell_waiting_calls()
        return retired

    def has_retired(self, lane: int) -> bool:
        """Return whether a lane is needed no more."""
        return self._closed or lane in self._retired

    def group(self, lanes: Sequence[int]) -> tuple[bool, int, list[Any]]:
        """Return what decides whether a group whose trainer has ended starts again.

        Returns:
            Whether all of its lanes have ended for good; the number of processes that have started in it; and their
            placement groups.
        """
        processes = [process for lane in lanes for process in self._processes.get(lane, [])]
        return all(map(self._has_ended, lanes)), len(processes), list({p.id: p for p in processes if p}.values())

    def report_fault(self, reason: str) -> None:
        """Record why a lane cannot work that is no trial's fault. Its job stays open until the sweep cancels it."""
        self._fault = self._fault or reason

    def fault(self) -> str:
        """Return the first reason why a lane cannot work; empty while all can."""
        return self._fault

    def close(self) -> None:
        """Take no more jobs, and let each lane retire when it next asks for one."""
        self._closed = True
        self._tell_waiting_calls()

    def status(self) -> tuple[dict[int, LaneStatus], int]:
        """Return the last status of every living lane, by its number, and the number of waiting jobs."""
        return {lane: self._last_status[lane] for lane in self._table.lanes()}, self._table.waiting()

    def expire_silent_lanes(self) -> None:
        """Declare lanes dead that hold jobs and send no heartbeats, and queue their jobs again.

        Nothing else notices that a node is lost, so the sweep calls this regularly.
        """
        self._fail(self._table.expire(time.monotonic()))
        self._tell_waiting_calls()

    def _tell_waiting_calls(self) -> None:
        """Let all calls that wait look whether what they wait for has come."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for(self, has_come: Callable[[], Any], seconds: float) -> None:
        """Wait until ``has_come`` returns a true value, or so many seconds are over; call it at least once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not has_come():
                    await self._changed.wait()

    def _lanes_on(self, nodes: Collection[str]) -> list[int]:
        return [lane for lane in self._table.lanes() if not set(nodes).isdisjoint(self._last_status[lane].nodes)]

    def _let_lanes_leave(self) -> None:
        for lane in self._lanes_on(self._draining):
            self._table.let_leave(lane)

    def _leave(self, lane: int, reason: str = "") -> None:
        if lane in self._lanes_on(self._draining):
            self._moved += [MovedJob(lane, str(job.trial), job.name, job.start) for job in self._table.lanes()[lane]]
        self._fail(self._table.leave(lane), reason)

    def _has_ended(self, lane: int) -> bool:
        return self._closed or lane in self._retired or lane in self._starts.given_up()

    def _resolve(self, job_id: str, answer: Answer) -> None:
        if future := self._answers.pop(job_id, None):
            future.set_result(answer)

    def _fail(self, jobs: Iterable[Job], reason: str = "") -> None:
        for job in jobs:
            self._resolve(job.id, dead_answer(job, self._table.death_limit, reason))


def start_broker(min_lanes: int) -> Any:
    """Start the broker on the driver's node: it is useless without the driver, and must survive other nodes.

    Args:
        min_lanes: as for :class:`Broker`.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Ray's types lack max_concurrency, which actors have.
    actor: Any = ray.remote(num_cpus=0, max_concurrency=MOST_CALLS)(Broker)  # type: ignore[call-overload]
    # Ray's control store would keep an event of every call, for as long as the sweep runs.
    return actor.options(scheduling_strategy=driver_node, enable_task_events=False).remote(min_lanes)
