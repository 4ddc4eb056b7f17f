from __future__ import annotations

import math

import pytest

from orchestrator.common.trial_types import State, TrialKey, TrialRecord
from orchestrator.selection.choose import finalists


def record(name: str, values: dict[int, float], state: State = "complete") -> TrialRecord:
    return TrialRecord(key=TrialKey.parse(name), params={}, state=state, values=values)


def chosen(*records: TrialRecord, higher: bool = True) -> list[str]:
    """The task's finalists, champion first."""
    found = finalists(records, higher_is_better={"mail": higher})
    return [str(r.key) for r in found["mail"].by_method.values()] if found else []


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
def test_who_is_chosen(records: list[TrialRecord], expected: list[str]) -> None:
    assert chosen(*records) == expected


def test_a_metric_to_minimise_chooses_the_smallest() -> None:
    trials = [record("mail/lora/0", {100: 3.0}), record("mail/lora/1", {100: 2.0}), record("mail/ia3/0", {100: 1.0})]
    assert chosen(*trials, higher=False) == ["mail/ia3/0", "mail/lora/1"]


def test_each_task_has_its_own_champion_by_its_own_direction() -> None:
    trials = [
        record("mail/lora/0", {100: 0.9}),
        record("mail/ia3/0", {100: 0.5}),
        record("chat/lora/0", {100: 9.0}),
        record("chat/ia3/0", {100: 5.0}),
    ]
    found = finalists(trials, higher_is_better={"mail": True, "chat": False})
    assert {task: str(each.champion.key) for task, each in found.items()} == {
        "mail": "mail/lora/0",
        "chat": "chat/ia3/0",
    }
