from __future__ import annotations

import math

import pytest

from orchestrator.common.trial_types import State, TrialKey, TrialRecord
from orchestrator.selection.best_trials import best_trials

from .small_evidence import MACRO_F1, PERPLEXITY


def record(name: str, values: dict[int, float], state: State = "complete") -> TrialRecord:
    return TrialRecord(key=TrialKey.parse(name), params={}, state=state, values=values)


def chosen(*records: TrialRecord, higher: bool = True) -> list[str]:
    """Return the best trials of the methods, leader first."""
    best = best_trials(records, {"mail": MACRO_F1 if higher else PERPLEXITY})
    return [str(r.key) for r in best["mail"].by_method.values()] if best else []


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param(
            [
                record("mail/lora/0", {25: 0.9, 100: 0.6}),
                record("mail/lora/1", {25: 0.1, 100: 0.7}),
                record("mail/ia3/0", {100: 0.65}),
            ],
            ["mail/lora/1", "mail/ia3/0"],
            id="the best of each method at the top rung, best method first",
        ),
        pytest.param(
            [record("mail/lora/0", {25: 0.9}, "pruned"), record("mail/lora/1", {25: 0.2, 50: 0.3}, "pruned")],
            ["mail/lora/1"],
            id="the highest rung where none is complete",
        ),
        pytest.param(
            [record("mail/lora/0", {25: 0.9}, "pruned"), record("mail/ia3/0", {100: 0.5})],
            ["mail/ia3/0", "mail/lora/0"],
            id="a score half-way is no final score",
        ),
        pytest.param(
            [
                record("mail/lora/0", {100: 0.9}, "failed"),
                record("mail/lora/1", {50: 0.9}, "killed"),
                record("mail/lora/2", {50: 0.9}, "running"),
                record("mail/lora/3", {25: 0.8, 50: math.nan}, "pruned"),
                record("mail/lora/4", {25: 0.1}, "pruned"),
            ],
            ["mail/lora/4"],
            id="failed, killed, running and diverged trials cannot win",
        ),
        pytest.param(
            [record("mail/lora/0", {100: 0.5}), record("mail/lora/1", {100: 0.5}), record("mail/ia3/0", {100: 0.5})],
            ["mail/lora/0", "mail/ia3/0"],
            id="equals stand in the order they started",
        ),
        pytest.param([record("mail/lora/0", {}, "pruned")], [], id="no result, no finalist"),
        pytest.param([], [], id="no trials"),
    ],
)
def test_best_trials_rank_later_rungs_first(records: list[TrialRecord], expected: list[str]) -> None:
    assert chosen(*records) == expected


def test_best_trials_of_a_loss_are_the_lowest() -> None:
    trials = [record("mail/lora/0", {100: 3.0}), record("mail/lora/1", {100: 2.0}), record("mail/ia3/0", {100: 1.0})]
    assert chosen(*trials, higher=False) == ["mail/ia3/0", "mail/lora/1"]


def test_best_trials_use_each_task_s_own_metric() -> None:
    trials = [
        record("mail/lora/0", {100: 0.9}),
        record("mail/ia3/0", {100: 0.5}),
        record("chat/lora/0", {100: 9.0}),
        record("chat/ia3/0", {100: 5.0}),
    ]
    best = best_trials(trials, {"mail": MACRO_F1, "chat": PERPLEXITY})
    assert {task: str(trials.leader.key) for task, trials in best.items()} == {
        "mail": "mail/lora/0",
        "chat": "chat/ia3/0",
    }
