"""A finalist's retraining: a trial of its own, with its own start, order and place, scored on two splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.common.trial_types import Answer, Job, checkpoint_path, partial_state_path, trial_seed
from orchestrator.lanes.lane import Lane

from ..lanes.test_lost_checkpoint import LOSSES, another
from .conftest import Lab, equal, state, train


def retraining(lab: Lab, number: int, **changes: Any) -> Job:
    job = lab.job("lora", **changes)
    return replace(job, split="test", retraining=number, seed=trial_seed(0, job.trial, number))


def done(here: Lane, job: Job) -> Answer:
    run = here.begin(job)
    train(run, job.stop - run.step)
    return here.end(run).write()


def test_each_has_its_own_place_and_both_scores(lab: Lab, here: Lane, tmp_path: Path) -> None:
    answers = [done(here, retraining(lab, number)) for number in range(2)]
    assert [one.checkpoint for one in answers] == [
        f"{checkpoint_path(lab.job('lora').trial, 12, number)}-test" for number in range(2)
    ]
    for one in answers:
        assert set(one.validation) == set(one.metrics) == {"macro_f1", "accuracy"}
        assert (tmp_path / "mail-1" / str(one.checkpoint) / "test.parquet").exists()
        assert (tmp_path / "mail-1" / str(one.checkpoint) / "adapter").is_dir()


def test_only_a_retraining_is_scored_on_validation_as_well(lab: Lab, here: Lane) -> None:
    assert done(here, replace(lab.job("lora"), split="test")).validation == {}


def test_a_seed_has_its_own_order_of_rows_and_its_own_start(lab: Lab, here: Lane) -> None:
    own, first, second, again = (
        here.begin(job) for job in (lab.job("lora"), retraining(lab, 0), retraining(lab, 1), retraining(lab, 0))
    )
    batches = [next(run._batches).tolist() for run in (own, first, second, again)]
    plain = next(lab.rows.training_batches(3, 0, 12)).tolist()
    assert batches[0] == plain
    assert len({tuple(one) for one in batches[:3]}) == 3
    assert batches[1] == batches[3]
    assert equal(state(first), state(again))
    assert not equal(state(first), state(second))


def test_the_trials_own_state_in_memory_is_not_taken_for_it(lab: Lab, here: Lane) -> None:
    paused = lab.job("lora", stop=4)
    done(here, paused)
    assert here.begin(retraining(lab, 0)).step == 0
    assert str(paused.trial) in here._warm, "and the trial can still go on"


@pytest.mark.parametrize("method", ["lora", "adapter"])  # adapter has dropout of its own
def test_one_that_was_cut_off_goes_on_elsewhere_and_comes_to_the_same(
    method: str, lab: Lab, here: Lane, tmp_path: Path
) -> None:
    job = replace(retraining(lab, 1), trial=lab.job(method).trial, params=lab.job(method).params, keep_every=3)
    whole = here.begin(job)
    losses = train(whole, 12)
    cut_off = here.begin(job)
    for _ in range(8):
        train(cut_off, 1)
        here.keep(cut_off)
    again = another(here).begin(job)
    assert again.step == 6
    assert train(again, 6) == losses[6:]
    assert equal(state(again), state(whole))
    assert here.end(again).write().checkpoint == f"{checkpoint_path(job.trial, 12, 1)}-test"
    assert another(here).begin(replace(job, retraining=0)).step == 0, "another seed has a state of its own"


@pytest.mark.parametrize(("keep_every", "expected"), [(0, 4), (2, 8)])
def test_a_trial_that_is_trained_to_its_end_in_the_final_is_kept_on_its_way_as_well(
    lab: Lab, here: Lane, keep_every: int, expected: int
) -> None:
    paused = done(here, lab.job("lora", stop=4))
    job = replace(lab.job("lora", start=4, checkpoint=paused.checkpoint), split="test", keep_every=keep_every)
    cut_off = here.begin(job)
    for _ in range(5):
        train(cut_off, 1)
        here.keep(cut_off)
    assert another(here).begin(job).step == expected


@pytest.mark.parametrize("lost", ["the optimizer's state", "half of the state", "half of where it was"])
def test_one_whose_state_is_damaged_begins_anew(
    lost: str, lab: Lab, here: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = replace(retraining(lab, 0), keep_every=3)
    train(cut_off := here.begin(job), 3)
    here.keep(cut_off)
    LOSSES[lost](tmp_path / "mail-1" / partial_state_path(job))
    assert another(here).begin(job).step == 0
    assert "begins anew" in caplog.text


def test_names_and_seeds_are_all_different(lab: Lab) -> None:
    jobs = [replace(lab.job("lora"), split="test"), *(retraining(lab, number) for number in range(5))]
    assert len({job.id for job in jobs}) == len({job.name for job in jobs}) == 6
    trial = jobs[0].trial
    assert len({trial_seed(0, trial), *(trial_seed(0, trial, number) for number in range(5))}) == 6


def test_a_full_trial_says_how_sure_its_validation_score_is(lab: Lab, here: Lane) -> None:
    answer = done(here, lab.job("lora"))
    error = answer.measurements["validation_standard_error"]
    assert 0 < error < 0.2
    score = answer.metrics["accuracy"]
    binomial = np.sqrt(max(score * (1 - score), 0.05) / 40)
    assert 0.3 * binomial < error < 3 * binomial, "the right size for forty rows"
    assert "validation_standard_error" not in done(here, lab.job("ia3", 1, stop=4)).measurements
