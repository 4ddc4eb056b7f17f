"""The broker: an actor between Tune's proxies, which ask for work, and the lanes, which do it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import ray

from orchestrator.common.trial_types import Answer, Job
from orchestrator.lanes.leases import LeaseTable, dead_answer

if TYPE_CHECKING:
    from orchestrator.lanes.setup import LaneSetup

LONG_POLL = 10.0


class Signal(Enum):
    """What a lane may hear instead of a job."""

    RETIRE = "there is no more work"
    REJOIN = "it was given up for dead; it may begin a new life"


@dataclass(frozen=True)
class LaneStatus:
    """What a lane says of itself with each heartbeat, for the display.

    Args:
        node: the id of its node.
        pid: its process.
        device: what it computes on, ``cpu`` or ``cuda``.
        dtype: what it multiplies in, ``float32`` or ``bfloat16``.
        threads: processor threads that it computes with.
        working: what it trains, ``lora/7``, and how far it is: steps done and steps in all.
        busy: fraction of its time since its first job spent in steps and evaluation.
    """

    node: str = ""
    pid: int = 0
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    working: dict[str, tuple[int, int]] = field(default_factory=dict)
    busy: float = 0.0


class Broker:
    """Leases jobs to lanes and brings answers back.

    Calls that wait (``run``, ``take``, ``setup``) and calls that do not have threads of their own, so that an answer
    is never behind a crowd that waits for it. Long polls end after ten seconds.

    Args:
        min_lanes: no job is leased before so many lanes have joined.
        table: the leases.
    """

    def __init__(self, min_lanes: int = 1, table: LeaseTable | None = None) -> None:
        self._table = table or LeaseTable()
        self._answers: dict[str, Future[Answer]] = {}
        self._news = threading.Condition()
        self._setup: LaneSetup | None = None
        self._status: dict[int, LaneStatus] = {}
        self._faults: list[str] = []
        self._closed = False
        self._min_lanes = min_lanes

    @ray.method(concurrency_group="run")
    def run(self, job: Job) -> Answer:
        """Do a job; returns when a lane has done it, it has failed, or it was cancelled."""
        with self._news:
            if self._closed:
                return Answer(status="cancelled", step=job.start)
            answer = self._answers[job.id] = Future()
            self._table.submit(job)
            self._news.notify_all()
        return answer.result()

    def open(self, setup: LaneSetup) -> None:
        """Say what lanes need to know; they wait for it."""
        with self._news:
            self._setup = setup
            self._news.notify_all()

    @ray.method(concurrency_group="take")
    def setup(self) -> LaneSetup | Signal | None:
        """What lanes need to know, or ``None`` after a while: ask again."""
        with self._news:
            self._news.wait_for(lambda: self._setup is not None or self._closed, LONG_POLL)
            return Signal.RETIRE if self._closed else self._setup

    def join(self, lane: int, incarnation: str, status: LaneStatus) -> None:
        """Begin a lane's life; what its former life held goes to others."""
        with self._news:
            self._fail(self._table.join(lane, incarnation, time.monotonic()))
            self._status[lane] = status
            self._news.notify_all()

    @ray.method(concurrency_group="take")
    def take(self, lane: int, incarnation: str, wait: bool) -> Job | Signal | None:
        """A job for a lane with room for it, ``None`` where there is none yet, or :class:`Signal`.

        Args:
            lane: who asks.
            incarnation: which of its lives.
            wait: whether it has nothing else to do.
        """
        found: list[Job] = []

        def ready() -> bool:
            if not self._closed and len(self._status) >= self._min_lanes:
                job = self._table.take(lane, incarnation, time.monotonic())
                found.extend([job] if job else [])
            return self._closed or bool(found)

        with self._news:
            if not self._table.is_current(lane, incarnation):
                return Signal.REJOIN
            self._news.wait_for(ready, LONG_POLL if wait else 0.0)
            return found[0] if found else Signal.RETIRE if self._closed else None

    def done(self, lane: int, incarnation: str, job_id: str, answer: Answer) -> None:
        """A lane's answer; ignored from a life that has ended."""
        with self._news:
            if self._table.complete(lane, incarnation, job_id):
                self._resolve(job_id, answer)
            self._news.notify_all()

    def heartbeat(self, lane: int, incarnation: str, held: frozenset[str], status: LaneStatus) -> frozenset[str]:
        """Renew a lane's leases. Returns those of ``held`` that are no longer its own."""
        with self._news:
            if self._table.is_current(lane, incarnation):
                self._status[lane] = status
            return held - self._table.heartbeat(lane, incarnation, time.monotonic())

    def cancel(self) -> None:
        """Answer every open job with "cancelled"; their lanes drop them within a heartbeat."""
        with self._news:
            for job in self._table.cancel():
                self._resolve(job.id, Answer(status="cancelled", step=job.start))
            self._news.notify_all()

    def fault(self, lane: int, reason: str) -> None:
        """A lane could not get ready; Ray Train starts it again, which may not help."""
        with self._news:
            self._faults.append(f"lane {lane} could not start: {reason}")

    def faults(self) -> list[str]:
        """Why lanes could not get ready, oldest first."""
        with self._news:
            return list(self._faults)

    def close(self) -> None:
        """Send the lanes home as soon as they ask for work, and take no more jobs."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def status(self) -> tuple[dict[int, LaneStatus], int]:
        """What the lanes said last, and how many jobs wait; gives up on lanes that fell silent."""
        with self._news:
            self._fail(self._table.expire(time.monotonic()))
            self._news.notify_all()
            return dict(self._status), self._table.waiting()

    def _resolve(self, job_id: str, answer: Answer) -> None:
        if future := self._answers.pop(job_id, None):
            future.set_result(answer)

    def _fail(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._resolve(job.id, dead_answer(job, self._table.death_limit))


def start_broker(min_lanes: int, most_jobs: int, most_lanes: int) -> Any:
    """Start the broker beside the driver, whose life it shares.

    Args:
        min_lanes: as for :class:`Broker`.
        most_jobs: how many callers may wait for answers at once.
        most_lanes: how many lanes may ask for work at once.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    groups = {"run": most_jobs + 1, "take": most_lanes + 1}
    decorate: Any = ray.remote(num_cpus=0, concurrency_groups=groups, max_concurrency=16)  # type: ignore[call-overload]
    actor = decorate(Broker)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return actor.options(scheduling_strategy=here).remote(min_lanes)
