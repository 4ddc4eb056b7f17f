"""Searches replayed on a table of learning curves: what they pay for, and which method they would name."""

from __future__ import annotations

import math

import pytest

from orchestrator.search.allocation import ALLOCATIONS
from orchestrator.simulation.replay import Result, core, incumbents, replay
from orchestrator.simulation.synthetic import METHODS, Synthetic

TABLE = Synthetic(METHODS[:4]).table("mail", 6)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_replay_keeps_the_budget_and_repeats_itself(allocation: str) -> None:
    policy, budget = core(ALLOCATIONS[allocation]()), 0.3 * TABLE.cost
    results = replay(policy, TABLE, 5, budget, lanes=2)
    assert results == replay(core(ALLOCATIONS[allocation]()), TABLE, 5, budget, lanes=2)
    assert 0.8 * budget < results[-1].cost <= budget
    costs = [result.cost for result in results]
    assert costs == sorted(costs)
    assert any(result.step == TABLE.rungs[-1] for result in results)
    assert len({result.method for result in results}) == 4
    assert results != replay(core(ALLOCATIONS[allocation]()), TABLE, 6, budget, lanes=2)


def test_replay_pays_for_all_that_it_trains() -> None:
    results = replay(core(ALLOCATIONS["round_robin"](), halving=None), TABLE, 0, TABLE.cost, lanes=1)
    complete = [result for result in results if result.step == TABLE.rungs[-1]]
    mean = TABLE.cost / sum(map(len, TABLE.methods.values()))
    assert results[-1].cost == pytest.approx(len(complete) * mean, rel=0.3)


def test_replay_names_the_best_at_the_highest_rung() -> None:
    results = [
        Result(1, "a", 10, 0.9),
        Result(2, "b", 20, 0.1),
        Result(3, "a", 20, math.nan),
        Result(4, "a", 10, 1.0),
        Result(5, "c", 20, 0.2),
        Result(6, "c", 20, 0.15),
    ]
    assert [(incumbent.cost, incumbent.method) for incumbent in incumbents(results)] == [(1, "a"), (2, "b"), (5, "c")]
