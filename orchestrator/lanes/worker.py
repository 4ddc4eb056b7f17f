"""A lane's life: join the broker, take jobs, step the trials, several at once where asked, and answer."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
import torch

from methods.plugins.loader import register_source
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.common.errors import describe_error
from orchestrator.common.trial_types import Answer, Job
from orchestrator.engine.pack_sizes import PackSizes
from orchestrator.engine.ranks import ALONE, OtherWorkerError, Ranks
from orchestrator.engine.step import score, step
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.broker import LaneStatus, Signal
from orchestrator.lanes.lane import BackboneWrittenError, Ended, Lane
from orchestrator.lanes.messages import BrokerMessage, broadcast_message
from orchestrator.lanes.setup import LaneSetup

HEARTBEAT = 2.0
ResultT = TypeVar("ResultT")
log = logging.getLogger(__name__)


@dataclass
class Heartbeat:
    """What the heartbeat thread tells, and what it hears: which jobs are no longer the lane's own.

    One for each life, since what was lost in one may be leased again in the next.
    """

    incarnation: str
    status: LaneStatus
    held: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


class Worker:
    """A lane's life: the same on all workers of a lane, of whom the first talks to the broker.

    Args:
        lane: its number.
        broker: the actor.
        ranks: this worker's place in the lane.
    """

    def __init__(self, lane: int, broker: Any, ranks: Ranks = ALONE) -> None:
        self.lane, self.broker, self.ranks = lane, broker, ranks
        self.incarnation = ""
        self.node = ray.get_runtime_context().get_node_id()
        self.active: list[TrialRun] = []
        self.busy, self.since = 0.0, 0.0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.float32
        self.stop = threading.Event()
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.writing: deque[Future[None]] = deque()

    def live(self) -> None:
        """Until the broker sends the lane home."""
        while (setup := ray.get(self.broker.setup.remote())) is None:
            continue
        if any(self.ranks.all_gather_object(setup is Signal.RETIRE)):
            return
        self.dtype = compute_dtype(setup.dtype, self.device)
        self.here = self._get_ready(setup)
        self.packs = PackSizes(setup.pack, measured=setup.measure_pack)
        self._join()
        heart = threading.Thread(target=self._beat, daemon=True)
        heart.start()
        try:
            with self.writer:
                self._work()
        finally:
            self.stop.set()
            heart.join()

    def _get_ready(self, setup: LaneSetup) -> Lane:
        """Map backbones and rows before the first trial asks for them."""
        try:
            for name, source in setup.plugins:
                register_source(name, source)
            lane = Lane(setup, self.device, self.dtype, self.ranks)
            for task in setup.tasks:
                lane.rows(task)
        except Exception as error:
            ray.get(self.broker.fault.remote(self.lane, describe_error(error)))
            raise
        return lane

    def _join(self) -> None:
        self.active, self.incarnation = [], uuid.uuid4().hex
        self.heartbeat = Heartbeat(self.incarnation, self._status())
        if self.ranks.is_rank_zero:
            ray.get(self.broker.join.remote(self.lane, self.incarnation, self._status()))

    def _work(self) -> None:
        while self._admit():
            if not self.active:
                continue
            self._drop_cancelled()
            self._step()
            self._keep()
            self._finish_reached()
            self._send_heartbeat()

    def _admit(self) -> bool:
        """Take jobs while there is room. Returns whether to go on."""
        while len(self.active) < self.here.setup.pack:
            job = self._take()
            if job is Signal.RETIRE:
                return False
            if job is Signal.REJOIN:
                self._join()
            if not isinstance(job, Job):
                return True
            self.since = self.since or time.perf_counter()
            try:
                run = self.here.begin(job)
            except Exception as error:  # a trial's own fault must not end its lane
                self._answer(job, _failure(job, error))
                continue
            self.active.append(run)
            self._finish_reached()
        return True

    def _take(self) -> BrokerMessage:
        """What the broker has for the lane."""
        asks = self.ranks.is_rank_zero
        message = ray.get(self.broker.take.remote(self.lane, self.incarnation, not self.active)) if asks else None
        return broadcast_message(self.ranks, message)

    def _step(self) -> None:
        """One optimizer step of every active trial, of as many together as gains."""
        begin = time.perf_counter()
        runs = [run for run in self.active if run.step < run.job.stop]
        groups = [[runs.index(run) for run in group] for group in self.packs.groups(runs)]
        failed = [
            failure
            for group in self.ranks.broadcast_object(groups)
            for failure in step([runs[k] for k in group], self.ranks)
        ]
        spent = time.perf_counter() - begin
        self.busy += spent
        for run, error in self._failed_anywhere(failed):
            self._fail(run, error)
        if not failed:
            self.packs.note(spent)

    def _failed_anywhere(self, failed: list[tuple[TrialRun, Exception]]) -> list[tuple[TrialRun, Exception]]:
        """The same on all workers: trials that failed on any, and what they raised here or there."""
        own = {run.job.id: error for run, error in failed if not isinstance(error, OtherWorkerError)}
        said = self.ranks.all_gather_object({name: describe_error(error) for name, error in own.items()})
        others = {name: f"worker {rank}: {text}" for rank, texts in enumerate(said) for name, text in texts.items()}
        return [
            (run, own.get(run.job.id) or OtherWorkerError(others[run.job.id]))
            for run in self.active
            if run.job.id in others
        ]

    def _keep(self) -> None:
        """Save who is under way, where that is asked for."""
        for run in list(self.active):
            self._or_fail(run, self.here.keep)

    def _finish_reached(self) -> None:
        reached = [run for run in self.active if run.step >= run.job.stop]
        if self.ranks.size == 1:  # ranks would exchange what they have scored in orders of their own
            begin = time.perf_counter()
            score(reached)
            self.busy += time.perf_counter() - begin
        for run in reached:
            if ended := self._or_fail(run, self.here.end):
                self.active.remove(run)
                self._write(run.job, ended)

    def _or_fail(self, run: TrialRun, act: Callable[[TrialRun], ResultT]) -> ResultT | None:
        """Do something with a trial; if it raises, the trial fails, and its lane too if what all share was written."""
        try:
            return act(run)
        except Exception as error:
            self._fail(run, error)
            if isinstance(error, BackboneWrittenError):
                raise
            return None

    def _write(self, job: Job, ended: Ended) -> None:
        """Bring what was saved to the storage and answer, while the next trial trains; a few at most wait for it."""
        while len(self.writing) > self.here.setup.pack:
            self.writing.popleft().result()
        self.writing.append(self.writer.submit(self._written, job, ended, self.incarnation))

    def _written(self, job: Job, ended: Ended, incarnation: str) -> None:
        try:
            answer = ended.write()
        except Exception as error:
            answer = replace(_failure(job, error), step=ended.answer.step, measurements=ended.answer.measurements)
        self._answer(job, answer, incarnation)

    def _drop_cancelled(self) -> None:
        """Leave trials whose jobs are no longer this lane's: cancelled, or leased to another."""
        lost = frozenset(self.ranks.broadcast_object(sorted(self.heartbeat.lost)))
        self.active = [run for run in self.active if run.job.id not in lost]

    def _fail(self, run: TrialRun, error: Exception) -> None:
        self.active.remove(run)
        self._answer(run.job, _failure(run.job, error, run))
        gc.collect()

    def _answer(self, job: Job, answer: Answer, incarnation: str = "") -> None:
        if self.ranks.is_rank_zero:
            ray.get(self.broker.done.remote(self.lane, incarnation or self.incarnation, job.id, answer))

    def _status(self) -> LaneStatus:
        working = {f"{r.job.trial.method}/{r.job.trial.number}": (r.step, r.job.total) for r in self.active}
        alive = time.perf_counter() - self.since if self.since else 0.0
        return LaneStatus(
            node=self.node,
            pid=os.getpid(),
            device=self.device.type,
            dtype="bfloat16" if self.dtype == torch.bfloat16 else "float32",
            threads=torch.get_num_threads(),
            working=working,
            busy=self.busy / alive if alive else 0.0,
        )

    def _send_heartbeat(self) -> None:
        self.heartbeat.held = frozenset(run.job.id for run in self.active)
        self.heartbeat.status = self._status()

    def _beat(self) -> None:
        while self.ranks.is_rank_zero and not self.stop.wait(HEARTBEAT):
            heartbeat = self.heartbeat
            told = (self.lane, heartbeat.incarnation, heartbeat.held, heartbeat.status)
            heartbeat.lost = ray.get(self.broker.heartbeat.remote(*told))


def _failure(job: Job, error: Exception, run: TrialRun | None = None) -> Answer:
    """The answer of a trial that failed by its own fault; what it cost counts all the same."""
    step = run.step if run else job.start
    log.warning("trial %s failed at step %d:\n%s", job.trial, step, traceback.format_exc())
    return Answer(status="failed", step=step, reason=describe_error(error), measurements=dict(run.measurements) if run else {})
