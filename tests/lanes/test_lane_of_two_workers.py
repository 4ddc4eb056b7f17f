"""A lane of two workers trains as a lane of one does."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.common.trial_types import Answer, Job
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.broker import LaneStatus
from orchestrator.lanes.worker import Worker
from orchestrator.lanes.worker_memory import WorkerMemory

from .. import polling
from ..engine.conftest import Lab, train
from ..engine.two_workers import second_worker
from .local_broker import Direct, LocalBroker
from .second_worker_of_lane import (
    PACK,
    SCENES,
    dataset_of,
    lane_setup,
    parameters,
    score_scenes,
    train_scenes,
    without_ray,
)

DEADLINE = 120.0
until = partial(polling.until, seconds=DEADLINE, pause=0.01)


class BothWorkers:
    """What both ranks found, as rank 0 has it, and a lane of both that takes jobs."""

    def __init__(self, lab: Lab, folder: Path, ranks: Ranks) -> None:
        self.lab, self.folder = lab, folder
        self.broker = LocalBroker()
        self.runs_by_name = train_scenes(lab, ranks)
        self.evaluations = score_scenes(self.runs_by_name)
        self.alone = train_scenes(lab, ALONE)
        ranks.all_gather_object("saved")
        self.second = load_file(folder / "second.safetensors")
        self.broker.open(lane_setup(lab, folder, pack=3))
        self.pool = ThreadPoolExecutor(8)
        self.worker = Worker(0, Direct(self.broker), ranks)
        self.lane_thread = self.pool.submit(self.worker.run)

    def submit(self, *jobs: Job) -> list[Future[Answer]]:
        return [self.pool.submit(self.broker.run, job) for job in jobs]

    def done(self, *jobs: Job) -> list[Answer]:
        return [answer.result(DEADLINE) for answer in self.submit(*jobs)]


@pytest.fixture(scope="module")
def both(make_lab: Callable[[str], Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothWorkers]:
    lab, folder = make_lab("encoder"), tmp_path_factory.mktemp("lane")
    with without_ray(lab), second_worker("tests.lanes.second_worker_of_lane", folder) as ranks:
        workers = BothWorkers(lab, folder, ranks)
        yield workers
        workers.broker.cancel()
        workers.broker.close()
        workers.lane_thread.result(DEADLINE)
        workers.pool.shutdown()


@pytest.mark.parametrize("name", [*SCENES, *(f"packed {name}" for name in PACK)])
def test_two_workers_have_the_losses_of_one_worker(name: str, both: BothWorkers) -> None:
    assert both.runs_by_name[name][0] == pytest.approx(both.alone[name][0], abs=1e-5)


def test_two_workers_hold_the_same_parameter_bits(both: BothWorkers) -> None:
    first = parameters(both.runs_by_name)
    assert first.keys() == both.second.keys()
    assert all(torch.equal(first[name], both.second[name]) for name in first)


def test_two_workers_score_every_row_once_in_order(both: BothWorkers) -> None:
    for name, evaluation in both.evaluations.items():
        run = both.runs_by_name[name][1]
        expected = dataset_of(both.lab, ALONE).evaluate(run.attached.module, "validation")
        assert evaluation.predictions.equals(expected.predictions)
        assert evaluation.metrics == expected.metrics


def test_two_workers_answer_like_one_worker(both: BothWorkers) -> None:
    lab = both.lab
    jobs = [lab.job("prefix", 11), lab.job("ia3", 12), lab.job("lora", 13, dropout=0.0)]
    answers = both.done(*jobs)
    assert {(answer.status, answer.step) for answer in answers} == {("done", 12)}
    for job, answer in zip(jobs, answers, strict=True):
        run = lab.run(job.trial.method, job.trial.number, **({"dropout": 0.0} if job.trial.method == "lora" else {}))
        train(run, 12)
        assert answer.metrics == pytest.approx(run.evaluate("validation").metrics, abs=1e-6)
        assert (both.folder / "sweep" / str(answer.checkpoint) / "adapter").is_dir()


@pytest.mark.parametrize(("number", "has_checkpoint"), [(21, True), (22, False)])
def test_two_workers_resume_a_trial_at_the_same_step(number: int, has_checkpoint: bool, both: BothWorkers) -> None:
    """One rank still has it in memory, the other has not; without a checkpoint both begin anew."""
    lab = both.lab
    (first,) = both.done(lab.job("prefix", number, stop=5))
    both.worker.memory._paused.clear()
    checkpoint = first.checkpoint if has_checkpoint else "checkpoints/gone"
    (second,) = both.done(lab.job("prefix", number, start=5, checkpoint=checkpoint))
    run = lab.run("prefix", number)
    train(run, 12)
    assert second.step == 12
    assert second.metrics == pytest.approx(run.evaluate("validation").metrics, abs=1e-6)


def test_two_workers_fail_only_the_trial_that_raised_on_one(both: BothWorkers) -> None:
    answers = both.done(*(both.lab.job("ia3", number) for number in range(3)))
    assert [answer.status for answer in answers] == ["done", "failed", "done"]
    assert (answers[1].step, answers[1].reason) == (4, "OtherWorkerError: worker 1: RuntimeError: out of luck")


def test_two_workers_fail_only_the_trial_that_cannot_start(both: BothWorkers) -> None:
    wrong, right = both.done(both.lab.job("lora", 31, rank=-3), both.lab.job("ia3", 32))
    assert (wrong.status, right.status) == ("failed", "done")
    assert "rank" in wrong.reason


def test_two_workers_both_drop_cancelled_trials(both: BothWorkers) -> None:
    lab = both.lab
    waiting = both.submit(*(lab.job("ia3", 40 + k, stop=10**6, total=10**6) for k in range(2)))
    until(lambda: len(both.broker.status()[0].get(0, LaneStatus()).working) == 2)
    both.broker.cancel()
    assert {answer.result(DEADLINE).status for answer in waiting} == {"cancelled"}
    (after,) = both.done(lab.job("ia3", 50))
    assert after.status == "done"
    assert both.worker.active == []


def test_two_workers_leave_their_node_together(both: BothWorkers) -> None:
    """The last test of this file: it ends the lane. One worker goes on with the trial where the two have stopped."""
    lab = both.lab
    job = lab.job("prefix", 60, stop=400, total=400)
    (waiting,) = both.submit(job)
    until(lambda: both.broker.status()[0].get(0, LaneStatus()).working.get(job.name, (0, 0))[0] > 20)
    both.broker.drain({"node"}, set())
    both.lane_thread.result(DEADLINE)
    (moved,) = both.broker.drain(set(), set())
    assert 20 < moved.step < 400
    begun = list[int]()
    begin = WorkerMemory.begin

    def record(memory: WorkerMemory, job: Job) -> TrialRun:
        run = begin(memory, job)
        begun.append(run.step)
        return run

    both.broker._draining.clear()
    with mock.patch.object(WorkerMemory, "begin", record):
        elsewhere = both.pool.submit(Worker(1, Direct(both.broker)).run)
        answer = waiting.result(DEADLINE)
    assert begun == [moved.step]
    assert (answer.status, answer.step) == ("done", 400)
    run = TrialRun(job, lab.backbone, lab.dataset, lab.training)
    train(run, 400)
    assert answer.metrics == pytest.approx(run.evaluate("validation").metrics, abs=1e-6)
    both.broker.close()
    elsewhere.result(DEADLINE)
