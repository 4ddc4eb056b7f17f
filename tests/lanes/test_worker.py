"""A whole lane on the broker itself, without Ray: calls to an actor are plain calls here."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.common.retry import Retry
from orchestrator.common.trial_types import Answer, Job
from orchestrator.engine import packing
from orchestrator.engine.device_errors import BrokenDeviceError
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.step import score_trials
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes import hang_guard
from orchestrator.lanes import worker as module
from orchestrator.lanes import worker_memory as memory_module
from orchestrator.lanes.broker import HeartbeatReply, LaneStatus
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.step_watch import HangLimits, Work
from orchestrator.lanes.worker import Worker
from orchestrator.lanes.worker_memory import BackboneWrittenError, WorkerMemory

from .. import polling
from ..engine.conftest import Lab, equal, state, train
from ..s3_server import s3_server
from ..small_disk import small_disk
from .local_broker import Direct, LocalBroker

DEADLINE = 60.0
until = partial(polling.until, seconds=DEADLINE, pause=0.001)


class Site:
    """A broker, and lanes as threads."""

    def __init__(self, lab: Lab, folder: Path, pack: int, storage: str, retry: Retry) -> None:
        self.lab, self.pack, self.folder = lab, pack, folder
        self.broker = LocalBroker()
        self.pool = ThreadPoolExecutor(8)
        self.other_pools: list[ThreadPoolExecutor] = []
        task = TaskSetup(lab.dataset._config, lab.dataset._tables, 3, "tiny", "original", 0)
        self.setup = LaneSetup(
            storage=storage,
            sweep="sweep",
            model="tiny",
            dtype="float32",
            tasks={"mail": task},
            training=lab.training,
            seed=0,
            pack=pack,
            retry=retry,
        )
        self.broker.open(self.setup)
        self.workers: list[Worker] = []

    def start_lane(self, number: int = 0) -> Future[None]:
        worker = Worker(number, Direct(self.broker))
        self.workers.append(worker)
        return self.pool.submit(worker.run)

    def start_thread_lane(self, number: int = 0) -> None:
        """Start a lane in a thread of its own, in which nothing has happened to torch's state."""
        worker = Worker(number, Direct(self.broker))
        self.workers.append(worker)
        self.other_pools.append(ThreadPoolExecutor(1))
        self.other_pools[-1].submit(worker.run)

    def submit(self, *jobs: Job) -> list[Future[Answer]]:
        return [self.pool.submit(self.broker.run, job) for job in jobs]


@pytest.fixture
def make_site(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    context = SimpleNamespace(get_node_id=lambda: "node")
    for module_with_ray in (module, memory_module):
        monkeypatch.setattr(
            module_with_ray, "ray", SimpleNamespace(get=lambda x: x, get_runtime_context=lambda: context)
        )
    monkeypatch.setattr(memory_module, "fetch", lambda digest, storage: lab.folder / f"{digest}.safetensors")
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL_S", 0.01)
    sites: list[Site] = []

    def make(pack: int = 1, storage: str = "", retry: Retry | None = None) -> Site:
        sites.append(Site(lab, tmp_path, pack, storage or str(tmp_path), retry or Retry(0.0)))
        return sites[-1]

    yield make
    for site in sites:
        site.broker.cancel()
        site.broker.close()
        for pool in (site.pool, *site.other_pools):
            pool.shutdown()


@pytest.mark.parametrize("pack", [1, 3])
def test_worker_trains_its_jobs_and_retires(make_site: Callable[..., Site], lab: Lab, pack: int) -> None:
    site = make_site(pack)
    jobs = [lab.job(method, number) for number, method in enumerate(("lora", "ia3", "adapter", "prefix", "full"))]
    life = site.start_lane()
    answers = [answer.result(DEADLINE) for answer in site.submit(*jobs)]
    assert {(answer.status, answer.step) for answer in answers} == {("done", 12)}
    for job, answer in zip(jobs, answers, strict=True):
        alone = lab.run(job.trial.method, job.trial.number)
        train(alone, 12)
        assert answer.metrics["macro_f1"] == pytest.approx(alone.evaluate("validation").metrics["macro_f1"], abs=1e-6)
        assert answer.measurements["trainable_parameters"] == alone.measurements["trainable_parameters"]
        folder = site.folder / "sweep" / str(answer.checkpoint)
        assert (folder / "adapter").is_dir()
        assert not (folder / "state.safetensors").exists(), "a finished trial saves no optimizer state"
    assert 0 < site.workers[0]._status().busy <= 1, "steps and evaluations are counted once"
    site.broker.close()
    life.result(DEADLINE)


def test_lane_shows_all_steps_while_it_scores(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, score = threading.Event(), score_trials
    monkeypatch.setattr(module, "score_trials", lambda runs: score(runs) if shown.wait(DEADLINE) else None)
    site = make_site()
    site.start_lane()
    (answer,) = site.submit(lab.job("lora"))
    until(lambda: (12, 12) in site.broker.status()[0].get(0, LaneStatus()).working.values())
    assert not answer.done()
    shown.set()
    assert answer.result(DEADLINE).status == "done"


def test_worker_trains_on_while_the_storage_is_slow(
    make_site: Callable[..., Site], lab: Lab, may_upload: threading.Event
) -> None:
    site = make_site()
    life = site.start_lane()
    first, second = site.submit(lab.job("lora", 0), lab.job("ia3", 1))
    until(lambda: len(site.workers[0].writing) == 2)
    assert not first.done(), "a job is not answered before its files are uploaded"
    assert not second.done()
    may_upload.set()
    assert all((site.folder / "sweep" / str(answer.result(DEADLINE).checkpoint)).is_dir() for answer in (first, second))
    site.broker.close()
    life.result(DEADLINE)


def test_worker_waits_for_a_storage_that_comes_back(
    make_site: Callable[..., Site], lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    with s3_server() as server:
        site = make_site(storage=server.uri(), retry=Retry(60.0, first_pause_s=0.01, longest_pause_s=0.1))
        life = site.start_lane()
        (first,) = site.submit(lab.job("lora", stop=5))
        answer = first.result(DEADLINE)
        server.stop()
        (second,) = site.submit(lab.job("lora", start=5, checkpoint=answer.checkpoint))
        until(lambda: "cannot be reached, trying for 60 s" in caplog.text)
        assert not second.done()
        server.start()
        assert (second.result(DEADLINE).status, second.result().step) == ("done", 12)
        assert f"sweeps/sweep/{second.result().checkpoint}/state.json" in server.objects()
        site.broker.close()
        life.result(DEADLINE)


def test_trial_stays_open_while_the_storage_stays_away(make_site: Callable[..., Site], lab: Lab) -> None:
    with s3_server() as server:
        site = make_site(storage=server.uri(), retry=Retry(1.0, first_pause_s=0.1))
        life = site.start_lane()
        server.stop()
        (waiting,) = site.submit(lab.job("lora"))
        until(site.broker.fault)
        assert site.broker.fault().startswith("lane 0: the storage s3://bucket/sweeps")
        assert "could not be reached for " in site.broker.fault()
        assert not waiting.done(), "a trial is not failed by its storage"
        site.broker.cancel()
        assert waiting.result(DEADLINE).status == "cancelled"
        site.broker.close()
        life.result(DEADLINE)


@pytest.mark.parametrize("partial_state_every", [0, 3])
def test_worker_waits_until_a_full_disk_has_space(
    partial_state_every: int,
    make_site: Callable[..., Site],
    lab: Lab,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
        site = make_site(retry=Retry(60.0, first_pause_s=0.01, longest_pause_s=0.1))
        disk.fill()
        site.start_lane()
        (answer,) = site.submit(replace(lab.job("lora", stop=6), partial_state_every=partial_state_every))
        until(lambda: f"{disk.folder} cannot be reached, trying for 60 s" in caplog.text)
        assert not answer.done()
        (disk.folder / "filler").unlink()
        assert answer.result(DEADLINE).status == "done"
        assert (site.folder / "sweep" / str(answer.result().checkpoint) / "state.safetensors").exists()


def test_lane_resumes_a_trial_from_memory_or_checkpoint(make_site: Callable[..., Site], lab: Lab) -> None:
    straight = lab.run("lora")
    train(straight, 12)
    site = make_site()
    site.start_lane()
    (first,) = [answer.result(DEADLINE) for answer in site.submit(lab.job("lora", stop=5))]
    rest = lab.job("lora", start=5, checkpoint=first.checkpoint)
    for memory in (WorkerMemory(site.setup, torch.device("cpu"), torch.float32), site.workers[0].memory):
        run = memory.begin(rest)
        train(run, 7)
        assert equal(state(run), state(straight))


def test_worker_fails_a_trial_that_raises_alone(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(3)
    forward = TrialRun.forward

    def fail_once(run: TrialRun) -> torch.Tensor:
        if run.job.trial.number == 1 and run.step == 4:
            raise RuntimeError("out of luck\nand more")
        return forward(run)

    monkeypatch.setattr(TrialRun, "forward", fail_once)
    site.start_lane()
    answers = [answer.result(DEADLINE) for answer in site.submit(*(lab.job("lora", number) for number in range(3)))]
    assert [answer.status for answer in answers] == ["done", "failed", "done"]
    assert (answers[1].step, answers[1].reason) == (4, "RuntimeError: out of luck")


def test_worker_fails_a_trial_that_cannot_start_alone(make_site: Callable[..., Site], lab: Lab) -> None:
    site = make_site(2)
    site.start_lane()
    wrong, right = site.submit(lab.job("lora", 0, rank=-3), lab.job("lora", 1))
    assert (wrong.result(DEADLINE).status, right.result(DEADLINE).status) == ("failed", "done")
    assert "rank" in wrong.result().reason


def test_worker_repeats_a_failed_packed_step_trial_by_trial(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(2)
    product = shared_matmul

    def small(
        weight: Any, dtype: torch.dtype, inputs: list[torch.Tensor], biases: list[Any]
    ) -> tuple[torch.Tensor, ...]:
        if len(inputs) > 1 and any(x.requires_grad for x in inputs):  # training with both trials
            raise torch.OutOfMemoryError("no room")
        return product(weight, dtype, inputs, biases)

    monkeypatch.setattr(packing, "shared_matmul", small)
    jobs = [lab.job("lora", number, batch_size=8) for number in range(2)]
    waiting = site.submit(*jobs)
    until(lambda: site.broker.status()[1] == 2)
    site.start_lane()
    assert [answer.result(DEADLINE).status for answer in waiting] == ["done", "done"]


def test_worker_drops_cancelled_trials_within_a_heartbeat(make_site: Callable[..., Site], lab: Lab) -> None:
    site = make_site(2)
    site.start_lane()
    endless = [lab.job("lora", number, stop=10**6, total=10**6) for number in range(2)]
    waiting = site.submit(*endless)
    until(lambda: len(site.broker.status()[0].get(0, LaneStatus()).working) == 2)
    site.broker.cancel()
    assert {answer.result(DEADLINE).status for answer in waiting} == {"cancelled"}
    (after,) = site.submit(lab.job("ia3", 5))
    assert after.result(DEADLINE).status == "done"
    assert site.workers[0].active == []


@pytest.mark.slow
def test_worker_declared_dead_joins_again_and_does_the_job(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs lost by a former incarnation are not lost to the new one, even the very same job."""
    site = make_site()
    lane = site.start_lane()
    lost_a_job = threading.Event()
    heartbeat = site.broker.heartbeat

    def slow(number: int, life: str, held: frozenset[str], status: LaneStatus) -> HeartbeatReply:
        reply: HeartbeatReply = heartbeat(number, life, held, status)
        if reply.lost:
            lost_a_job.set()
        return reply

    monkeypatch.setattr(site.broker, "heartbeat", slow)
    (answer,) = site.submit(lab.job("lora", stop=400, total=400))
    until(lambda: site.broker.status()[0].get(0, LaneStatus()).working)
    site.broker.expire(time.monotonic() + 1000)
    assert lost_a_job.wait(DEADLINE)
    until(lambda: site.broker.status()[1] == 0 or answer.done())
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL_S", 1e6)
    assert answer.result(DEADLINE).status == "done"
    site.broker.close()
    lane.result(DEADLINE)


def test_worker_saves_a_partial_state_for_its_replacement(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, steps = make_site(), list[int]()
    finish = TrialRun.finish_step

    def die_once(run: TrialRun, *arguments: Any) -> None:
        if len(steps) == 8:
            steps.append(-1)
            raise SystemExit
        finish(run, *arguments)
        steps.append(run.step)

    monkeypatch.setattr(TrialRun, "finish_step", die_once)
    (answer,) = site.submit(replace(lab.job("lora"), split="test", retraining=0, partial_state_every=3))
    with pytest.raises(SystemExit):
        site.start_lane().result(DEADLINE)
    site.start_lane()
    assert answer.result(DEADLINE).status == "done"
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, -1, 7, 8, 9, 10, 11, 12]


def test_worker_forgets_lost_jobs_when_it_joins_again(make_site: Callable[..., Site], lab: Lab) -> None:
    site = make_site()
    worker = Worker(0, Direct(site.broker))
    worker.memory = WorkerMemory(site.setup, worker.device, worker.dtype)
    worker._join()
    job = lab.job("lora")
    worker.heartbeat.reply = HeartbeatReply(frozenset({job.id}))
    worker._join()
    worker.active = [lab.run("lora")]
    worker._heed_heartbeat()
    assert [run.job.id for run in worker.active] == [job.id]


def test_worker_ends_when_a_trial_writes_to_the_backbone(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    forward = TrialRun.forward

    def write_to_backbone(run: TrialRun) -> torch.Tensor:
        with torch.no_grad():
            run.attached.module.get_parameter("base_model.model.bert.embeddings.LayerNorm.weight").add_(1e-3)
        return forward(run)

    monkeypatch.setattr(TrialRun, "forward", write_to_backbone)
    lane = site.start_lane()
    (answer,) = site.submit(lab.job("lora"))
    assert "shared backbone" in answer.result(DEADLINE).reason
    with pytest.raises(BackboneWrittenError):
        lane.result(DEADLINE)


class StickyError(TorchDispatchMode):
    """A device whose every call fails from now on, in the thread that enters it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "profiler":  # asks no device
            return function(*args, **(kwargs or {}))
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("place", ["forward", "evaluate", "restore"])
def test_worker_ends_when_its_device_is_broken(
    place: str, make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, broken = getattr(TrialRun, place), threading.Event()

    def break_device(run: TrialRun, *arguments: Any, **named: Any) -> Any:
        if not broken.is_set():
            broken.set()
            StickyError().__enter__()
        return original(run, *arguments, **named)

    site = make_site(pack=2)
    jobs = [lab.job(method, number, stop=5) for number, method in enumerate(("lora", "ia3"))]
    if place == "restore":
        first = site.start_lane()
        checkpoints = [answer.result(DEADLINE).checkpoint for answer in site.submit(*jobs)]
        jobs = [
            lab.job(method, number, start=5, checkpoint=checkpoint)
            for number, (method, checkpoint) in enumerate(zip(("lora", "ia3"), checkpoints, strict=True))
        ]
        site.workers[0].memory._paused.clear()
    monkeypatch.setattr(TrialRun, place, break_device)
    if place != "restore":
        first = site.start_lane()
    answers = site.submit(*jobs)
    with pytest.raises(BrokenDeviceError, match="cpu cannot be used by this process any more: AcceleratorError"):
        first.result(DEADLINE)
    assert not any(answer.done() for answer in answers), "no trial is known to be at fault"
    assert site.broker.status()[0] == {}, "its jobs wait for another lane already"
    site.workers.clear()
    site.start_thread_lane()
    assert {answer.result(DEADLINE).status for answer in answers} == {"done"}


def test_worker_fails_a_trial_whose_device_error_passes(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: TrialRun) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: invalid configuration argument")

    monkeypatch.setattr(TrialRun, "forward", fail)
    site = make_site()
    site.start_lane()
    (answer,) = site.submit(lab.job("lora"))
    assert answer.result(DEADLINE).reason == "AcceleratorError: CUDA error: invalid configuration argument"


@pytest.mark.parametrize(
    ("place", "work"),
    [("__init__", Work.ATTACH), ("forward", Work.TRAIN), ("_score", Work.SCORE_TEST), ("save", Work.SAVE)],
)
def test_worker_watches_all_that_runs_a_trials_code(
    place: str, work: Work, make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, watched = getattr(TrialRun, place), list[Any]()

    def look(run: TrialRun, *arguments: Any, **named: Any) -> Any:
        activity = site.workers[0].watch._activity
        watched.append(activity and activity.work)
        return original(run, *arguments, **named)

    monkeypatch.setattr(TrialRun, place, look)
    site = make_site()
    site.start_lane()
    (answer,) = site.submit(replace(lab.job("lora"), split="test", retraining=0, partial_state_every=3))
    assert answer.result(DEADLINE).status == "done"
    assert set(watched) <= {work, Work.SCORE_VALIDATION}
    assert work in watched


def test_trial_that_hangs_alone_fails_the_second_time(
    make_site: Callable[..., Site],
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    forward, release, ended = TrialRun.forward, threading.Event(), threading.Semaphore(0)

    def hang(run: TrialRun, **named: Any) -> torch.Tensor:
        if run.job.trial.number == 1 and run.step == 5:
            release.wait()
            raise SystemExit
        return forward(run, **named)

    monkeypatch.setattr(TrialRun, "forward", hang)
    monkeypatch.setattr(hang_guard, "end_process", ended.release)
    site = make_site()
    site.setup = replace(site.setup, hangs=HangLimits(least_s=2.0, first_s=30.0))
    site.broker.open(site.setup)
    hanging, other = site.submit(lab.job("lora", 1), lab.job("lora", 2))
    until(lambda: site.broker.status()[1] == 2)
    for _ in range(2):
        site.start_lane()
        assert ended.acquire(timeout=DEADLINE)
    failed = hanging.result(DEADLINE)
    assert (failed.status, failed.step) == ("failed", 0)
    assert failed.reason.startswith("its lane died 2 times while it trained; last: hung at step 6, training: nothing")
    site.start_lane()
    assert other.result(DEADLINE).status == "done"
    assert "the lane is stuck and starts again; mail/lora/1 hung at step 6" in caplog.text
    assert " in hang\n" in capfd.readouterr().err, "the stacks name the function that hangs"
    release.set()
