"""A lane of two workers trains as a lane of one does."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.common.trial_types import Answer, Job
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.lanes.broker import Broker, LaneStatus
from orchestrator.lanes.worker import Worker

from ..engine.conftest import Lab, train
from ..engine.two_workers import second_worker
from .second_worker_of_lane import PACK, SCENES, lane_setup, parameters, rows_of, scored, trained, without_ray

DEADLINE = 120.0


class Together:
    """What both ranks found, as rank 0 has it, and a lane of both that takes jobs."""

    def __init__(self, lab: Lab, folder: Path, ranks: Ranks) -> None:
        self.lab, self.folder = lab, folder
        self.broker: Any = Broker()  # typed by Ray as an actor
        self.found = trained(lab, ranks)
        self.scored = scored(self.found)
        self.alone = trained(lab, ALONE)
        ranks.all_gather_object("saved")
        self.second = load_file(folder / "second.safetensors")
        self.broker.open(lane_setup(lab, folder, pack=3))
        self.pool = ThreadPoolExecutor(8)
        self.worker = Worker(0, Direct(self.broker), ranks)
        self.life = self.pool.submit(self.worker.run)

    def submit(self, *jobs: Job) -> list[Future[Answer]]:
        return [self.pool.submit(self.broker.run, job) for job in jobs]

    def done(self, *jobs: Job) -> list[Answer]:
        return [answer.result(DEADLINE) for answer in self.submit(*jobs)]


class Direct:
    """An actor's handle on a plain object."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._broker, name))


@pytest.fixture(scope="module")
def together(make_lab: Callable[[str], Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    lab, folder = make_lab("encoder"), tmp_path_factory.mktemp("lane")
    with without_ray(lab), second_worker("tests.lanes.second_worker_of_lane", folder) as ranks:
        made = Together(lab, folder, ranks)
        yield made
        made.broker.cancel()
        made.broker.close()
        made.life.result(DEADLINE)
        made.pool.shutdown()


@pytest.mark.parametrize("name", [*SCENES, *(f"packed {name}" for name in PACK)])
def test_two_workers_have_the_losses_of_one_worker(name: str, together: Together) -> None:
    assert together.found[name][0] == pytest.approx(together.alone[name][0], abs=1e-5)


def test_two_workers_hold_the_same_parameter_bits(together: Together) -> None:
    mine = parameters(together.found)
    assert mine.keys() == together.second.keys()
    assert all(torch.equal(mine[name], together.second[name]) for name in mine)


def test_two_workers_score_every_row_once_in_order(together: Together) -> None:
    for name, evaluation in together.scored.items():
        run = together.found[name][1]
        expected = rows_of(together.lab, ALONE).evaluate(run.attached.module, "validation")
        assert evaluation.predictions.equals(expected.predictions)
        assert evaluation.metrics == expected.metrics


def test_two_workers_answer_like_one_worker(together: Together) -> None:
    lab = together.lab
    jobs = [lab.job("prefix", 11), lab.job("ia3", 12), lab.job("lora", 13, dropout=0.0)]
    answers = together.done(*jobs)
    assert {(answer.status, answer.step) for answer in answers} == {("done", 12)}
    for job, answer in zip(jobs, answers, strict=True):
        run = lab.run(job.trial.method, job.trial.number, **({"dropout": 0.0} if job.trial.method == "lora" else {}))
        train(run, 12)
        assert answer.metrics == pytest.approx(run.evaluate("validation").metrics, abs=1e-6)
        assert (together.folder / "sweep" / str(answer.checkpoint) / "adapter").is_dir()


@pytest.mark.parametrize(("number", "there"), [(21, True), (22, False)])
def test_two_workers_resume_a_trial_at_the_same_step(number: int, there: bool, together: Together) -> None:
    """One rank still has it in memory, the other has not; without a checkpoint both begin anew."""
    lab = together.lab
    (first,) = together.done(lab.job("prefix", number, stop=5))
    together.worker.lane._paused.clear()
    checkpoint = first.checkpoint if there else "checkpoints/gone"
    (second,) = together.done(lab.job("prefix", number, start=5, checkpoint=checkpoint))
    run = lab.run("prefix", number)
    train(run, 12)
    assert second.step == 12
    assert second.metrics == pytest.approx(run.evaluate("validation").metrics, abs=1e-6)


def test_two_workers_fail_only_the_trial_that_raised_on_one(together: Together) -> None:
    answers = together.done(*(together.lab.job("ia3", number) for number in range(3)))
    assert [answer.status for answer in answers] == ["done", "failed", "done"]
    assert (answers[1].step, answers[1].reason) == (4, "OtherWorkerError: worker 1: RuntimeError: out of luck")


def test_two_workers_fail_only_the_trial_that_cannot_start(together: Together) -> None:
    wrong, right = together.done(together.lab.job("lora", 31, rank=-3), together.lab.job("ia3", 32))
    assert (wrong.status, right.status) == ("failed", "done")
    assert "rank" in wrong.reason


def test_two_workers_both_drop_cancelled_trials(together: Together) -> None:
    lab = together.lab
    waiting = together.submit(*(lab.job("ia3", 40 + k, stop=10**6, total=10**6) for k in range(2)))
    until(lambda: len(together.broker.status()[0].get(0, LaneStatus()).working) == 2)
    together.broker.cancel()
    assert {answer.result(DEADLINE).status for answer in waiting} == {"cancelled"}
    (after,) = together.done(lab.job("ia3", 50))
    assert after.status == "done"
    assert together.worker.active == []


def until(holds: Callable[[], Any]) -> None:
    """Poll the real state."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
