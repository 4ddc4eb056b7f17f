"""Policies and verdicts of ``benchmarks.selection``, on tables whose best methods are known."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import selection
from benchmarks._policies import POLICIES
from benchmarks._policies_across_methods import EstimatedCostOfImprovement, HalvingOverMethods, RisingBandits
from benchmarks._policies_hyperband import Hyperband
from benchmarks._policies_one_study import Asha
from benchmarks._verdicts import TiedSet, Verdict, find_tied_set, judge, wilson_interval
from orchestrator.common.errors import InputError
from orchestrator.search.allocation import Arm
from orchestrator.search.plans import Decision, Proposal
from orchestrator.simulation.replay import Incumbent, replay
from orchestrator.simulation.synthetic import METHODS, Synthetic
from orchestrator.simulation.table import Table

TABLE = Synthetic(METHODS[:4]).table("mail", 6)


def write_table(scores: dict[str, list[list[float]]]) -> Table:
    """Return a table with the scores of each method's configurations at four rungs, at a second per step."""
    rows = [
        {"task": "mail", "method": method, "config_id": number, "step": step, "seconds": step, "score": score}
        | {"params": json.dumps({"learning_rate": 10.0 ** -(number + 1), "rank": 2**number})}
        for method, curves in scores.items()
        for number, curve in enumerate(curves)
        for step, score in zip((10, 20, 40, 80), curve, strict=True)
    ]
    return Table.of("mail", rows)


def arm(study: str, *bests: float, cost: float = 0.0, starts: int | None = None) -> Arm:
    return Arm(study, len(bests) if starts is None else starts, cost, 1.0, bests)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_keep_the_budget_and_are_deterministic(policy: str) -> None:
    budget = 0.3 * TABLE.cost
    results = replay(POLICIES[policy], TABLE, 5, budget, lanes=2)
    assert results == replay(POLICIES[policy], TABLE, 5, budget, lanes=2)
    assert 0.8 * budget < results[-1].cost <= budget
    costs = [result.cost for result in results]
    assert costs == sorted(costs)
    assert any(result.step == TABLE.rungs[-1] for result in results)
    assert len({result.method for result in results}) == (1 if policy == "oracle" else 4)
    assert results != replay(POLICIES[policy], TABLE, 6, budget, lanes=2)


def test_random_policy_costs_as_much_as_its_trials() -> None:
    results = replay(POLICIES["random"], TABLE, 0, TABLE.cost, lanes=1)
    complete = [result for result in results if result.step == TABLE.rungs[-1]]
    mean = TABLE.cost / sum(map(len, TABLE.methods.values()))
    assert results[-1].cost == pytest.approx(len(complete) * mean, rel=0.3)


def test_tied_set_has_methods_not_significantly_below_the_best() -> None:
    best = {"a": 0.80, "b": 0.77, "c": 0.76, "d": 0.60}
    table = write_table({method: [[0.1, 0.1, 0.1, score]] for method, score in best.items()})
    assert find_tied_set(table) == TiedSet(("a", "b"), False)  # 1.645 sqrt(2 0.8 0.2 / 768) = 0.0336
    assert find_tied_set(table, 0.001) == TiedSet(("a",), False)
    assert find_tied_set(table, 0.02) == TiedSet(("a", "b"), True)


def test_tied_set_needs_standard_error_of_unbounded_scores() -> None:
    table = write_table({"a": [[1.0, 2.0, 3.0, 40.0]], "b": [[1.0, 2.0, 3.0, 20.0]]})
    with pytest.raises(InputError, match="--standard-error"):
        find_tied_set(table)
    assert find_tied_set(table, 1.0).methods == ("a",)


def test_verdict_counts_cost_until_named_method_remains_tied() -> None:
    table = write_table({"a": [[0.1, 0.1, 0.1, 0.9]], "b": [[0.1, 0.1, 0.1, 0.5]]})  # 160 seconds
    tied_set = find_tied_set(table)

    def verdict(*changes: tuple[float, str, float]) -> Verdict:
        return judge(table, [Incumbent(cost, method, 80, score) for cost, method, score in changes], tied_set)

    assert verdict((16, "a", 0.9)) == Verdict(True, 0.0, 0.1)
    assert verdict((16, "a", 0.4), (32, "b", 0.5), (80, "a", 0.9)) == Verdict(True, 0.0, 0.5)
    assert verdict((16, "a", 0.4), (32, "b", 0.5)) == Verdict(False, 0.4, 1.0)
    assert verdict() == Verdict(False, 0.8, 1.0)


def test_verdict_interval_of_a_rate() -> None:
    assert wilson_interval(90, 100) == pytest.approx((0.826, 0.945), abs=1e-3)
    assert wilson_interval(100, 100) == pytest.approx((0.963, 1.0), abs=1e-3)


def test_cost_ratio_leaves_out_the_held_out_task() -> None:
    costs = {("a", "race"): 0.1, ("a", "tpe_asha"): 0.4, ("negation", "race"): 0.3, ("negation", "tpe_asha"): 0.3}
    comparison = selection.compare_costs(costs, ["a", "negation"])
    assert comparison["ratio"] == pytest.approx(0.25)
    assert comparison["held_out_ratio"] == pytest.approx(1.0)
    assert selection.compare_costs({("a", "race"): 0.1}, ["a"])["ratio"] is None


def test_asha_stops_below_quantile_of_earlier_results() -> None:
    asha = Asha((10, 20, 40, 80), 2)
    assert [asha.continues(10, value) for value in (0.5, 0.4, 0.6, 0.5, 0.45)] == [True, False, True, True, False]
    assert asha.continues(20, 0.0)
    by_four = Asha((10, 20, 40, 80), 4)
    assert [by_four.continues(10, value) for value in (0.5, 0.6, 0.55)] == [True, True, False]
    assert all(by_four.continues(20, value) for value in (0.9, 0.1))  # step 20 is not one of its rungs


def test_hyperband_halves_its_brackets() -> None:
    search = Hyperband(TABLE, 0)
    steps: list[list[int]] = []
    started: dict[str, int] = {}
    for number in range(40):
        proposal = search.ask()
        steps.append([number, proposal.start])
        started[str(proposal.key)] = max(proposal.start, started.get(str(proposal.key), 0))
        stop = next(rung for rung in TABLE.rungs if rung > proposal.start)
        search.report(proposal.key, stop, number / 100)
    assert [start for _, start in steps[:15]] == [0] * 8 + [10] * 4 + [20] * 2 + [40]
    # the next bracket begins a rung higher: ceil(4 / 3 * 4) trials
    assert [start for _, start in steps[15 : 15 + 6]] == [0] * 6


def test_rising_bandits_drops_methods_that_cannot_catch_up() -> None:
    bandits = RisingBandits(budget=40.0)
    arms = [arm("a", 0.5, 0.6, 0.7, 0.8, cost=4), arm("b", 0.3, 0.3, 0.3, 0.3, cost=4, starts=1)]
    assert bandits.choose(arms, {"a", "b"}) == "a"  # b has not improved
    rising = [arm("a", 0.5, 0.6, 0.7, 0.8, cost=4), arm("b", 0.1, 0.2, 0.3, 0.4, cost=4, starts=1)]
    assert RisingBandits(budget=40.0).choose(rising, {"a", "b"}) == "b"
    assert (
        RisingBandits(budget=9.0).choose(rising, {"a", "b"}) == "a"
    )  # the remaining budget is too small for b to catch up


def test_sha_methods_halves_methods_round_by_round() -> None:
    halving = HalvingOverMethods(budget=30.0)
    arms = [arm(name, score, cost=1) for name, score in zip("abcd", (0.1, 0.4, 0.3, 0.2), strict=True)]
    assert halving.choose(arms, set("abcd")) == "a"
    later = [arm(name, score, cost=4) for name, score in zip("abcd", (0.1, 0.4, 0.3, 0.2), strict=True)]
    assert halving.choose(later, set("abcd")) in ("b", "c")
    assert halving.choose(later, {"a", "d"}) is None


def test_eci_draws_cheap_improvements_more_often() -> None:
    eci = EstimatedCostOfImprovement(0)
    eci.choose([arm("a", 0.5, cost=1), arm("b", 0.5, cost=1)], {"a", "b"})
    eci.choose([arm("a", 0.5, 0.6, cost=2), arm("b", 0.5, 0.55, cost=9)], {"a", "b"})
    arms = [arm("a", 0.5, 0.6, cost=3), arm("b", 0.5, 0.55, cost=12)]
    choices = [eci.choose(arms, {"a", "b"}) for _ in range(200)]
    assert 150 < choices.count("a") < 200


def test_hyperband_pauses_or_stops_after_every_result() -> None:
    search = Hyperband(TABLE, 0)
    proposal: Proposal = search.ask()
    assert search.report(proposal.key, 10, math.nan) is Decision.PAUSE
    assert search.report(search.ask().key, 80, 0.5) is Decision.STOP
