"""A finalist's retraining: a trial of its own, with its own start, order and place, scored on two splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.lanes.lane import Lane
from orchestrator.trials import Answer, Job, checkpoint_path, trial_seed

from .conftest import Lab, equal, state, train


def retraining(lab: Lab, number: int, **changes: Any) -> Job:
    job = lab.job("lora", **changes)
    return replace(job, split="test", retraining=number, seed=trial_seed(0, job.trial, number))


def done(here: Lane, job: Job) -> Answer:
    run = here.begin(job)
    train(run, job.stop - run.step)
    return here.end(run)


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


def test_names_and_seeds_are_all_different(lab: Lab) -> None:
    jobs = [replace(lab.job("lora"), split="test"), *(retraining(lab, number) for number in range(5))]
    assert len({job.id for job in jobs}) == len({job.name for job in jobs}) == 6
    trial = jobs[0].trial
    assert len({trial_seed(0, trial), *(trial_seed(0, trial, number) for number in range(5))}) == 6


def test_a_full_trial_says_how_sure_its_validation_score_is(lab: Lab, here: Lane) -> None:
    answer = done(here, lab.job("lora"))
    error = answer.facts["validation_standard_error"]
    assert 0 < error < 0.2
    score = answer.metrics["accuracy"]
    binomial = np.sqrt(max(score * (1 - score), 0.05) / 40)
    assert 0.3 * binomial < error < 3 * binomial, "the right size for forty rows"
    assert "validation_standard_error" not in done(here, lab.job("ia3", 1, stop=4)).facts
