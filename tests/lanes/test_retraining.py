"""A finalist's retraining: a trial with its own initialization, data order and checkpoint, scored on two splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.common.trial_types import Answer, Job, checkpoint_path, partial_state_path, trial_seed
from orchestrator.lanes.worker_memory import WorkerMemory

from ..engine.conftest import Lab, equal, state, train
from .test_lost_checkpoint import LOSSES, fresh_memory

METRICS = {"macro_f1", "accuracy", "mcc", "balanced_accuracy", "roc_auc"}


def retraining(lab: Lab, number: int, **changes: Any) -> Job:
    job = lab.job("lora", **changes)
    return replace(job, split="test", retraining=number, seed=trial_seed(0, job.trial, number))


def finish(memory: WorkerMemory, job: Job) -> Answer:
    run = memory.begin(job)
    train(run, job.stop - run.step)
    return memory.finish_job(run).upload()


def test_retraining_has_its_own_checkpoint_and_two_scores(lab: Lab, memory: WorkerMemory, tmp_path: Path) -> None:
    answers = [finish(memory, retraining(lab, number)) for number in range(2)]
    assert [answer.checkpoint for answer in answers] == [
        f"{checkpoint_path(lab.job('lora').trial, 12, number)}-test" for number in range(2)
    ]
    for answer in answers:
        assert set(answer.validation) == set(answer.metrics) == METRICS
        assert (tmp_path / "mail-1" / str(answer.checkpoint) / "test.parquet").exists()
        assert (tmp_path / "mail-1" / str(answer.checkpoint) / "adapter").is_dir()


def test_retraining_alone_is_scored_on_validation_too(lab: Lab, memory: WorkerMemory) -> None:
    assert finish(memory, replace(lab.job("lora"), split="test")).validation == {}


def test_retraining_has_its_own_data_order_and_initialization(lab: Lab, memory: WorkerMemory) -> None:
    trial, first, second, repeated = (
        memory.begin(job) for job in (lab.job("lora"), retraining(lab, 0), retraining(lab, 1), retraining(lab, 0))
    )
    batches = [next(run._batches).tolist() for run in (trial, first, second, repeated)]
    plain = next(lab.dataset.training_batches(3, 0, 12)).tolist()
    assert batches[0] == plain
    assert len({tuple(batch) for batch in batches[:3]}) == 3
    assert batches[1] == batches[3]
    assert equal(state(first), state(repeated))
    assert not equal(state(first), state(second))


def test_retraining_does_not_continue_the_paused_trial(lab: Lab, memory: WorkerMemory) -> None:
    paused = lab.job("lora", stop=4)
    finish(memory, paused)
    assert memory.begin(retraining(lab, 0)).step == 0
    assert str(paused.trial) in memory._paused, "the trial can still continue"


@pytest.mark.parametrize("method", ["lora", "adapter"])  # adapter has dropout of its own
def test_retraining_resumes_in_another_lane_exactly(
    method: str, lab: Lab, memory: WorkerMemory, tmp_path: Path
) -> None:
    job = replace(retraining(lab, 1), trial=lab.job(method).trial, params=lab.job(method).params, partial_state_every=3)
    uninterrupted = memory.begin(job)
    losses = train(uninterrupted, 12)
    interrupted = memory.begin(job)
    for _ in range(8):
        train(interrupted, 1)
        memory.save_partial_state(interrupted)
    resumed = fresh_memory(memory).begin(job)
    assert resumed.step == 6
    assert train(resumed, 6) == losses[6:]
    assert equal(state(resumed), state(uninterrupted))
    assert memory.finish_job(resumed).upload().checkpoint == f"{checkpoint_path(job.trial, 12, 1)}-test"
    assert fresh_memory(memory).begin(replace(job, retraining=0)).step == 0, "each seed has its own state"


@pytest.mark.parametrize(("partial_state_every", "expected"), [(0, 4), (2, 8)])
def test_partial_state_of_a_final_training_is_resumed(
    lab: Lab, memory: WorkerMemory, partial_state_every: int, expected: int
) -> None:
    paused = finish(memory, lab.job("lora", stop=4))
    job = replace(
        lab.job("lora", start=4, checkpoint=paused.checkpoint), split="test", partial_state_every=partial_state_every
    )
    interrupted = memory.begin(job)
    for _ in range(5):
        train(interrupted, 1)
        memory.save_partial_state(interrupted)
    assert fresh_memory(memory).begin(job).step == expected


@pytest.mark.parametrize("lost", ["the optimizer's state", "half of the state", "half of where it was"])
def test_retraining_with_a_damaged_partial_state_starts_at_0(
    lost: str, lab: Lab, memory: WorkerMemory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = replace(retraining(lab, 0), partial_state_every=3)
    train(interrupted := memory.begin(job), 3)
    memory.save_partial_state(interrupted)
    LOSSES[lost](tmp_path / "mail-1" / partial_state_path(job))
    assert fresh_memory(memory).begin(job).step == 0
    assert "starts again at step 0" in caplog.text


def test_partial_state_is_where_release_0_1_saved_it(lab: Lab) -> None:
    job = replace(lab.job("peft:loha"), retraining=1)
    assert partial_state_path(job) == "checkpoints/mail/peft.loha/0/seed-1/under-way"


def test_retraining_names_and_seeds_are_distinct(lab: Lab) -> None:
    jobs = [replace(lab.job("lora"), split="test"), *(retraining(lab, number) for number in range(5))]
    assert len({job.id for job in jobs}) == len({job.name for job in jobs}) == 6
    trial = jobs[0].trial
    assert len({trial_seed(0, trial), *(trial_seed(0, trial, number) for number in range(5))}) == 6


def test_full_trial_reports_its_validation_standard_error(lab: Lab, memory: WorkerMemory) -> None:
    answer = finish(memory, lab.job("lora"))
    error = answer.measurements["validation_standard_error"]
    assert 0 < error < 0.2
    score = answer.metrics["accuracy"]
    binomial = np.sqrt(max(score * (1 - score), 0.05) / 40)
    assert 0.3 * binomial < error < 3 * binomial, "about the binomial error of forty rows"
    assert "validation_standard_error" not in finish(memory, lab.job("ia3", 1, stop=4)).measurements
