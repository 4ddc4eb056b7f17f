"""One worker of a lane: join the broker, take jobs, step their trials, several at once where that pays, and answer."""

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
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray
import torch

from methods.plugins.loader import register_source
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.common.errors import describe_error, first_line
from orchestrator.common.retry import StorageError
from orchestrator.common.trial_types import Answer, Job
from orchestrator.engine.device_errors import breaks_device, broken_device
from orchestrator.engine.gpu_identity import gpu_identity
from orchestrator.engine.pack_sizes import PackSizes
from orchestrator.engine.random_stream import CPU
from orchestrator.engine.ranks import ALONE, OtherWorkerError, Ranks
from orchestrator.engine.step import score_trials, train_step
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.broker import HeartbeatReply, LaneStatus, Signal
from orchestrator.lanes.hang_guard import HangGuard
from orchestrator.lanes.messages import BrokerMessage, broadcast_message
from orchestrator.lanes.setup import LaneSetup
from orchestrator.lanes.step_watch import Hang, StepWatch, Work
from orchestrator.lanes.worker_memory import BackboneWrittenError, FinishedJob, WorkerMemory, curve_of_job, subject

HEARTBEAT_INTERVAL_S = 2.0
REPORT_WAIT_S = 5.0
ResultT = TypeVar("ResultT")
log = logging.getLogger(__name__)


@dataclass
class Heartbeat:
    """What the heartbeat thread sends to the broker, and what the broker replied last.

    Every incarnation has its own: a job that one has lost may be leased to the next.
    """

    incarnation: str
    status: LaneStatus
    held: frozenset[str] = frozenset()
    reply: HeartbeatReply = field(default_factory=HeartbeatReply)


def lane_device(gpus: float) -> torch.device:
    """Return the device that a worker of a lane computes on.

    Ray shows the workers of a lane all GPUs that the lane has on the node, and makes each worker's own the current one.
    The device has that index: safetensors would take a plain ``cuda`` for the first GPU.

    Args:
        gpus: GPUs of the worker, or a fraction of one; 0 for the processor, even on a machine with GPUs.
    """
    if gpus and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return CPU


class Worker:
    """One worker of a lane. All workers of a lane run the same code; rank 0 alone talks to the broker.

    Args:
        lane_id: number of the lane.
        broker: actor that has the jobs.
        ranks: this worker's rank in the lane.
        device: device that computes, as :func:`lane_device` returns it.
        own_gpu: whether no other lane has the worker's GPU.
    """

    def __init__(
        self, lane_id: int, broker: Any, ranks: Ranks = ALONE, device: torch.device = CPU, own_gpu: bool = False
    ) -> None:
        self.lane_id, self.broker, self.ranks = lane_id, broker, ranks
        self.incarnation = ""
        self.nodes = tuple(sorted(set(ranks.all_gather_object(ray.get_runtime_context().get_node_id()))))
        self.active: list[TrialRun] = []
        self.busy_seconds, self.first_job_at = 0.0, 0.0
        self.device, self.dtype, self.own_gpu = device, torch.float32, own_gpu
        self.gpu: dict[str, str] = {}
        self.stop = threading.Event()
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.writing: deque[Future[None]] = deque()

    def run(self) -> None:
        """Work until the broker lets the lane retire, or until the lane has to leave its node."""
        while (setup := ray.get(self.broker.setup.remote(self.lane_id))) is None:
            continue
        if any(self.ranks.all_gather_object(setup is Signal.RETIRE)):
            return
        self.dtype, self.gpu = compute_dtype(setup.dtype, self.device), gpu_identity(self.device)
        self.watch = StepWatch(setup.hangs)
        guard = HangGuard(self.watch, setup.hangs, self._report_hang)
        self.memory = self._prepare_memory(setup)
        self.packs = PackSizes(setup.pack, measured=setup.measure_pack, device=self.device, own_gpu=self.own_gpu)
        self._join()
        heartbeats = threading.Thread(target=self._send_heartbeats, daemon=True)
        heartbeats.start()
        guard.start()
        try:
            with self.writer:
                self._work()
                setup.retry.cancel()  # nobody waits for the files of a lane that has retired
        except BaseException as error:
            self._leave(describe_error(error))
            raise
        finally:
            guard.stop()
            self.stop.set()
            heartbeats.join()

    def _prepare_memory(self, setup: LaneSetup) -> WorkerMemory:
        """Map backbones and rows before the first trial needs them."""
        try:
            for name, source in setup.plugins:
                register_source(name, source)
            memory = WorkerMemory(setup, self.device, self.dtype, self.ranks, self.watch)
            for task in setup.tasks:
                memory.dataset(task)
        except Exception as error:
            ray.get(self.broker.report_failed_start.remote(self.lane_id, describe_error(error)))
            raise
        return memory

    def _join(self) -> None:
        self.active, self.incarnation = [], uuid.uuid4().hex
        self.heartbeat = Heartbeat(self.incarnation, self._status())
        if self.ranks.is_rank_zero:
            ray.get(self.broker.join.remote(self.lane_id, self.incarnation, self._status()))

    def _leave(self, reason: str = "") -> None:
        """Let the broker lease this lane's jobs to others at once, before its process has started again."""
        if self.ranks.is_rank_zero:
            ray.get(self.broker.leave.remote(self.lane_id, self.incarnation, reason))

    def _report_hang(self, hang: Hang) -> None:
        """Let the broker lease the jobs of a lane that hangs to others, each alone: one of them may be the cause."""
        self._leave(hang.reason)
        if not self.ranks.is_rank_zero:  # rank 0, which waits for this worker, notices as well, and reports
            self.stop.wait(REPORT_WAIT_S)

    def _work(self) -> None:
        while self._take_jobs():
            if not self.active:
                continue
            self._step()
            if self._heed_heartbeat():
                self._hand_back_trials()
                return
            self._save_partial_states()
            self._finish_jobs()
            self._update_heartbeat()

    def _take_jobs(self) -> bool:
        """Take jobs while slots are free. Returns ``False`` if the lane ends."""
        while len(self.active) < self.memory.setup.pack:
            job = self._take()
            if job is Signal.RETIRE:
                return False
            if job is Signal.LEAVE:
                self._hand_back_trials()
                return False
            if job is Signal.REJOIN:
                self._join()
            if not isinstance(job, Job):
                return True
            self.first_job_at = self.first_job_at or time.perf_counter()
            try:
                run = self.memory.begin(job)
            except Exception as error:  # the trial's own fault must not end its lane
                self._require_device(error)
                self._answer_failure(job, error)
                continue
            self.active.append(run)
            self._finish_jobs()
        return True

    def _take(self) -> BrokerMessage:
        """Ask the broker for a job; a lane without trials waits for one."""
        message = None
        if self.ranks.is_rank_zero:
            message = ray.get(self.broker.take.remote(self.lane_id, self.incarnation, not self.active))
        return broadcast_message(self.ranks, message)

    def _step(self) -> None:
        """Take one optimizer step with every active trial, in packs as large as pays."""
        begin = time.perf_counter()
        runs = [run for run in self.active if run.step < run.job.stop]
        groups = [[runs.index(run) for run in group] for group in self.packs.groups(runs)]
        failures = [
            failure
            for group in self.ranks.broadcast_object(groups)
            for failure in self._train_step([runs[k] for k in group])
        ]
        seconds = time.perf_counter() - begin
        self.busy_seconds += seconds
        for run, error in self._failures_of_all_ranks(failures):
            self._fail(run, error)
        if not failures:
            self.packs.record_round(seconds)

    def _train_step(self, runs: list[TrialRun]) -> list[tuple[TrialRun, Exception]]:
        with self.watch.during(Work.TRAIN, [subject(run) for run in runs]):
            return train_step(runs, self.ranks)

    def _failures_of_all_ranks(self, failures: list[tuple[TrialRun, Exception]]) -> list[tuple[TrialRun, Exception]]:
        """Return the trials that failed on any worker of the lane, each with this rank's error or another's."""
        errors = {run.job.id: error for run, error in failures if not isinstance(error, OtherWorkerError)}
        by_rank = self.ranks.all_gather_object({name: describe_error(error) for name, error in errors.items()})
        texts = {name: f"worker {rank}: {text}" for rank, named in enumerate(by_rank) for name, text in named.items()}
        return [
            (run, errors.get(run.job.id) or OtherWorkerError(texts[run.job.id]))
            for run in self.active
            if run.job.id in texts
        ]

    def _save_partial_states(self) -> None:
        """Save the partial states of active trials whose jobs ask for it."""
        for run in list(self.active):
            self._run_or_fail(run, self.memory.save_partial_state)

    def _finish_jobs(self) -> None:
        """Score, save and answer the trials that have reached the ends of their jobs."""
        finished = [run for run in self.active if run.step >= run.job.stop]
        if finished:
            self._update_heartbeat()  # the display shows all their steps while they are scored and measured
        # In a lane of several workers, trials exchange their predictions as they are scored. A packed pass interleaves
        # them by what each rank's greenlets do, so the ranks' collective calls would not match.
        if self.ranks.size == 1:
            begin = time.perf_counter()
            for split in sorted({run.job.split for run in finished if run.job.split}):
                runs = [run for run in finished if run.job.split == split]
                with self.watch.during(Work.scoring(split), [subject(run) for run in runs]):
                    score_trials(runs)
            self.busy_seconds += time.perf_counter() - begin
        for run in finished:
            if finished_job := self._run_or_fail(run, self.memory.finish_job):
                self.active.remove(run)
                self._write(run.job, finished_job)

    def _run_or_fail(self, run: TrialRun, action: Callable[[TrialRun], ResultT]) -> ResultT | None:
        """Run an action; if it raises, the trial fails, and the lane too if the shared backbone was written to."""
        try:
            return action(run)
        except Exception as error:
            self._fail(run, error)
            if isinstance(error, BackboneWrittenError):
                raise
            return None

    def _write(self, job: Job, finished_job: FinishedJob) -> None:
        """Upload a job's files and answer it while the next trial trains; at most ``pack + 1`` jobs wait for that."""
        while len(self.writing) > self.memory.setup.pack:
            self.writing.popleft().result()
        self.writing.append(self.writer.submit(self._upload_and_answer, job, finished_job, self.incarnation))

    def _upload_and_answer(self, job: Job, finished_job: FinishedJob, incarnation: str) -> None:
        try:
            answer = finished_job.upload()
        except StorageError as error:
            self._report_fault(error)
            return
        except Exception as error:
            done = finished_job.answer
            answer = replace(_failure(job, error), step=done.step, measurements=done.measurements)
        self._answer(job, answer, incarnation)

    def _heed_heartbeat(self) -> bool:
        """Drop trials whose jobs this lane no longer holds: cancelled, or leased to another lane.

        Returns:
            Whether the lane has to leave.
        """
        reply = self.heartbeat.reply
        lost, leave = self.ranks.broadcast_object([sorted(reply.lost), reply.leave])
        self.active = [run for run in self.active if run.job.id not in lost]
        return bool(leave)

    def _hand_back_trials(self) -> None:
        """Save every trial between two steps and hand it back, first the one that would lose most.

        The time until the node is gone is not known to suffice. Each job is handed back as soon as its state is in the
        storage, and the broker queues those again that this lane did not come to.
        """
        for run in sorted(self.active, key=lambda run: run.job.start - run.step):
            saved = self.memory.save_for_another_lane(run)
            if self.ranks.is_rank_zero:
                step = run.step if saved else run.job.start
                ray.get(self.broker.hand_back.remote(self.lane_id, self.incarnation, run.job.id, step, saved))
        self.active = []
        while self.writing:
            self.writing.popleft().result()
        self._leave()

    def _fail(self, run: TrialRun, error: Exception) -> None:
        self._require_device(error)
        self.active.remove(run)
        self._answer_failure(run.job, error, run)
        gc.collect()

    def _require_device(self, error: Exception) -> None:
        """Check, after an error, that the devices of all workers still compute: otherwise no trial is at fault.

        Raises:
            BrokenDeviceError: if one does not.
        """
        if any(self.ranks.all_gather_object(breaks_device(error, self.device))):
            raise broken_device(error, self.device) from error

    def _answer_failure(self, job: Job, error: Exception, run: TrialRun | None = None) -> None:
        """Answer a job that failed by its trial's fault; leave it open if the storage cannot be reached."""
        if _is_storage_fault(error):
            self._report_fault(error)
        else:
            self._answer(job, _failure(job, error, run))

    def _report_fault(self, error: Exception) -> None:
        """Let the sweep stop with its trials open: no lane can train without the storage."""
        if self.ranks.is_rank_zero and not self.stop.is_set():
            ray.get(self.broker.report_fault.remote(f"lane {self.lane_id}: {first_line(error)}"))

    def _answer(self, job: Job, answer: Answer, incarnation: str = "") -> None:
        if self.ranks.is_rank_zero:
            ray.get(self.broker.done.remote(self.lane_id, incarnation or self.incarnation, job.id, answer))

    def _status(self) -> LaneStatus:
        working = {r.job.name: (r.step, r.job.total) for r in self.active}
        seconds = time.perf_counter() - self.first_job_at if self.first_job_at else 0.0
        return LaneStatus(
            nodes=self.nodes,
            pid=os.getpid(),
            device=self.device.type,
            dtype="bfloat16" if self.dtype == torch.bfloat16 else "float32",
            threads=torch.get_num_threads(),
            gpu=self.gpu,
            working=working,
            busy=self.busy_seconds / seconds if seconds else 0.0,
        )

    def _update_heartbeat(self) -> None:
        self.heartbeat.held = frozenset(run.job.id for run in self.active)
        self.heartbeat.status = self._status()

    def _send_heartbeats(self) -> None:
        while self.ranks.is_rank_zero and not self.stop.wait(HEARTBEAT_INTERVAL_S):
            heartbeat = self.heartbeat  # of this incarnation, even if the lane joins again while the broker answers
            arguments = (self.lane_id, heartbeat.incarnation, heartbeat.held, heartbeat.status)
            heartbeat.reply = ray.get(self.broker.heartbeat.remote(*arguments))


def _is_storage_fault(error: Exception) -> bool:
    """Return whether this worker, or another one of its lane, could not reach the storage."""
    of_other = isinstance(error, OtherWorkerError) and f" {StorageError.__name__}: " in str(error)
    return of_other or isinstance(error, StorageError)


def _failure(job: Job, error: Exception, run: TrialRun | None = None) -> Answer:
    """Return the answer of a trial that failed by its own fault, with the measurements of what it cost."""
    step, measurements = (run.step, dict(run.measurements)) if run else (job.start, {})
    curve = curve_of_job(run) if run else {}
    log.warning("trial %s failed at step %d:\n%s", job.trial, step, "".join(traceback.format_exception(error)))
    return Answer(status="failed", step=step, reason=describe_error(error), measurements=measurements, curve=curve)
