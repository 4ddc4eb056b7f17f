"""A lane's life: join the broker, take jobs, step the trials, several at once where asked, and answer."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import traceback
import uuid
from dataclasses import dataclass
from typing import Any

import ray
import torch

import methods
from methods._plugins import register_source
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.errors import told
from orchestrator.lanes.broker import LaneStatus, Signal
from orchestrator.lanes.lane import BackboneWrittenError, Lane
from orchestrator.lanes.pack_sizes import PackSizes
from orchestrator.lanes.run import TrialRun
from orchestrator.lanes.setup import LaneSetup
from orchestrator.lanes.step import score, step
from orchestrator.trials import Answer, Job

HEARTBEAT = 2.0
log = logging.getLogger(__name__)


@dataclass
class Pulse:
    """What the heartbeat thread tells, and what it hears: which jobs are no longer the lane's own.

    One for each life, since what was lost in one may be leased again in the next.
    """

    incarnation: str
    status: LaneStatus
    held: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


def lane_loop(config: dict[str, Any]) -> None:
    """The function that Ray Train runs in every worker: join, take, train, answer, until told to retire.

    Args:
        config: ``broker``, the actor; ``first``, the number of this group's first lane; ``threads`` per lane.
    """
    from ray import train

    torch.set_num_threads(config["threads"])
    lane = config["first"] + train.get_context().get_world_rank()
    _Worker(lane, config["broker"]).live()


class _Worker:
    """The loop itself."""

    def __init__(self, lane: int, broker: Any) -> None:
        self.lane, self.broker = lane, broker
        self.incarnation = ""
        self.node = ray.get_runtime_context().get_node_id()
        self.active: list[TrialRun] = []
        self.busy, self.since = 0.0, 0.0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.float32
        self.stop = threading.Event()

    def live(self) -> None:
        _warm_up()
        while (setup := ray.get(self.broker.setup.remote())) is None:
            continue
        if setup is Signal.RETIRE:
            return
        self.dtype = compute_dtype(setup.dtype, self.device)
        self.here = self._get_ready(setup)
        self.packs = PackSizes(setup.pack, measured=setup.measure_pack)
        self._join()
        heart = threading.Thread(target=self._beat, daemon=True)
        heart.start()
        try:
            self._work()
        finally:
            self.stop.set()
            heart.join()

    def _get_ready(self, setup: LaneSetup) -> Lane:
        """Map backbones and rows before the first trial asks for them."""
        try:
            for name, source in setup.plugins:
                register_source(name, source)
            lane = Lane(setup, self.device, self.dtype)
            for task in setup.tasks:
                lane.rows(task)
        except Exception as error:
            ray.get(self.broker.fault.remote(self.lane, told(error)))
            raise
        return lane

    def _join(self) -> None:
        self.active, self.incarnation = [], uuid.uuid4().hex
        self.pulse = Pulse(self.incarnation, self._status())
        ray.get(self.broker.join.remote(self.lane, self.incarnation, self._status()))

    def _work(self) -> None:
        while self._admit():
            if not self.active:
                continue
            begin = time.perf_counter()
            self._drop_cancelled()
            self._step()
            self._finish_reached()
            self.busy += time.perf_counter() - begin
            self._tell_pulse()

    def _admit(self) -> bool:
        """Take jobs while there is room. Returns whether to go on."""
        while len(self.active) < self.here.setup.pack:
            job = ray.get(self.broker.take.remote(self.lane, self.incarnation, not self.active))
            if job is Signal.RETIRE:
                return False
            if job is Signal.REJOIN:
                self._join()
            if not isinstance(job, Job):
                return True
            self.since = self.since or time.perf_counter()
            begin = time.perf_counter()
            try:
                run = self.here.begin(job)
            except Exception as error:  # a trial's own fault must not end its lane
                self._answer(job, _failure(job, error))
                continue
            self.active.append(run)
            self.busy += time.perf_counter() - begin
            self._finish_reached()
        return True

    def _step(self) -> None:
        """One optimizer step of every active trial, of as many together as gains."""
        begin = time.perf_counter()
        groups = self.packs.groups([run for run in self.active if run.step < run.job.stop])
        failed = [failure for runs in groups for failure in step(runs)]
        for run, error in failed:
            self._fail(run, error)
        if not failed:
            self.packs.note(time.perf_counter() - begin)

    def _finish_reached(self) -> None:
        reached = [run for run in self.active if run.step >= run.job.stop]
        score(reached)
        for run in reached:
            self.active.remove(run)
            try:
                self._answer(run.job, self.here.end(run))
            except BackboneWrittenError as error:
                self._answer(run.job, _failure(run.job, error, run))
                raise
            except Exception as error:
                self._answer(run.job, _failure(run.job, error, run))

    def _drop_cancelled(self) -> None:
        """Leave trials whose jobs are no longer this lane's: cancelled, or leased to another."""
        self.active = [run for run in self.active if run.job.id not in self.pulse.lost]

    def _fail(self, run: TrialRun, error: Exception) -> None:
        self.active.remove(run)
        self._answer(run.job, _failure(run.job, error, run))
        gc.collect()

    def _answer(self, job: Job, answer: Answer) -> None:
        ray.get(self.broker.done.remote(self.lane, self.incarnation, job.id, answer))

    def _status(self) -> LaneStatus:
        working = {f"{r.job.trial.method}/{r.job.trial.number}": (r.step, r.job.total) for r in self.active}
        alive = time.perf_counter() - self.since if self.since else 0.0
        busy = self.busy / alive if alive else 0.0
        return LaneStatus(
            node=self.node,
            pid=os.getpid(),
            device=self.device.type,
            dtype="bfloat16" if self.dtype == torch.bfloat16 else "float32",
            threads=torch.get_num_threads(),
            working=working,
            busy=busy,
            busy_seconds=self.busy,
        )

    def _tell_pulse(self) -> None:
        self.pulse.held = frozenset(run.job.id for run in self.active)
        self.pulse.status = self._status()

    def _beat(self) -> None:
        while not self.stop.wait(HEARTBEAT):
            pulse = self.pulse
            told = (self.lane, pulse.incarnation, pulse.held, pulse.status)
            pulse.lost = ray.get(self.broker.heartbeat.remote(*told))


def _failure(job: Job, error: Exception, run: TrialRun | None = None) -> Answer:
    """The answer of a trial that failed by its own fault; what it cost counts all the same."""
    step = run.step if run else job.start
    log.warning("trial %s failed at step %d:\n%s", job.trial, step, traceback.format_exc())
    return Answer(status="failed", step=step, reason=told(error), facts=dict(run.facts) if run else {})


def _warm_up() -> None:
    """Import what the first trial would wait for, while the driver still tokenizes and quantizes."""
    import peft  # noqa: F401

    for name in methods.names():
        methods.get(name)
