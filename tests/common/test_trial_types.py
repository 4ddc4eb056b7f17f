"""Keys, seeds, ids and paths of trials, which all processes of a sweep must compute alike."""

import itertools
import math
import os
import subprocess
import sys

import pytest

from orchestrator.common.trial_types import Answer, Job, TrialKey, TrialRecord, checkpoint_path, trial_seed

KEY = TrialKey("mail/lora", 12)


def test_trial_key_has_task_and_method_and_parses() -> None:
    assert (KEY.task, KEY.method, str(KEY)) == ("mail", "lora", "mail/lora/12")
    assert TrialKey.parse(str(KEY)) == KEY
    assert checkpoint_path(KEY, 40) == "checkpoints/mail/lora/12/step-40"


def test_trial_keys_sort_by_number_not_by_text() -> None:
    assert sorted([TrialKey("mail/lora", 10), TrialKey("mail/lora", 9)])[0].number == 9


def test_trial_seed_is_the_same_in_every_process() -> None:
    code = "from orchestrator.common.trial_types import *; print(trial_seed(7, TrialKey('mail/lora', 12)))"
    for hashing in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert int(shown.stdout) == trial_seed(7, KEY)


def test_trial_seeds_differ_by_sweep_seed_study_and_number() -> None:
    keys = [TrialKey(study, number) for study in ("mail/lora", "mail/ia3", "tweets/lora") for number in range(20)]
    seeds = [trial_seed(seed, key) for seed in range(3) for key in keys]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_job_id_differs_exactly_where_the_work_does() -> None:
    choices = [(KEY, TrialKey("mail/lora", 1), TrialKey("mail/ia3", 12)), (0, 20), (40, 80), ("validation", "test")]
    jobs = [
        Job(trial=trial, params={}, seed=0, start=start, stop=stop, total=80, split=split)  # type: ignore[arg-type]
        for trial, start, stop, split in itertools.product(*choices)
    ]
    assert len({job.id for job in jobs}) == len(jobs)
    again = Job(trial=KEY, params={"rank": 8}, seed=1, start=0, stop=40, total=80)
    assert again.id == jobs[0].id


def test_answer_survives_conversion_to_plain_values() -> None:
    answer = Answer(status="done", step=3, metrics={"accuracy": 0.5}, measurements={"seconds": 1.0})
    assert Answer(**answer.to_dict()) == answer


def test_trial_record_returns_its_last_rung() -> None:
    record = TrialRecord(key=KEY, params={}, values={40: 0.6, 20: 0.5})
    assert (record.step, record.value) == (40, 0.6)
    fresh = TrialRecord(key=KEY, params={})
    assert fresh.step == 0
    assert math.isnan(fresh.value)


@pytest.mark.parametrize(
    ("worse", "better", "higher_is_better"),
    [
        ({20: 0.5}, {20: 0.6}, True),
        ({20: 0.6}, {20: 0.5}, False),
        ({20: 0.9}, {20: 0.9, 40: 0.5}, True),  # a later rung counts first
        ({20: 1.0}, {20: 1.0, 40: 9.0}, False),
        ({20: 0.5, 40: math.nan}, {20: 0.1}, True),  # it diverged
        ({40: math.inf}, {20: 9.0}, False),
        ({}, {20: 0.0}, True),
    ],
)
def test_trial_rank_orders_by_rung_then_value(
    worse: dict[int, float], better: dict[int, float], higher_is_better: bool
) -> None:
    low, high = (TrialRecord(key=KEY, params={}, values=values) for values in (worse, better))
    assert low.rank(higher_is_better=higher_is_better) < high.rank(higher_is_better=higher_is_better)
