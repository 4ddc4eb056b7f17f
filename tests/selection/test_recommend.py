"""Which of the tied methods, why, and what would change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.selection.recommend import Recommendation, cost, cost_text, in_order, measured_text, pareto, recommend

from .small_evidence import MACRO_F1, PERPLEXITY, measurements, result

LORA = result("lora", 0.82, tied=True, measurements=measurements(size=2.4e6, memory=3e8, latency=0.2, merges=True))
ADAPTER = result("adapter", 0.81, tied=True, measurements=measurements(size=0.3e6, memory=2e8, latency=0.1))
IA3 = result("ia3", 0.70, gap=0.08, measurements=measurements(size=0.1e6))
PROBE = result("linear_probe", 0.60, measurements=measurements(size=0.01e6), reason="far behind")


def chosen(prefer: Any, *results: Any, higher: bool = True) -> Recommendation:
    return recommend(results or (LORA, ADAPTER, IA3), prefer, MACRO_F1 if higher else PERPLEXITY)


@pytest.mark.parametrize(
    ("prefer", "method", "words"),
    [
        ("score", "lora", "lora has the best score of the 2 tied methods"),
        (
            "size",
            "adapter",
            "adapter has the smallest adapter of the 2 tied methods: 300 kB, lora 2.4 MB",
        ),
        ("memory", "adapter", "needs the least memory"),
        ("latency", "lora", "2 tied methods: no added latency once merged (+20% before), adapter +10% latency"),
        ("training_time", "lora", "lora has the better score of those that tie"),
    ],
)
def test_choose_applies_the_preference_to_tied_methods_alone(prefer: Any, method: str, words: str) -> None:
    choice = chosen(prefer)
    assert choice.method == method
    assert words in choice.reason


def test_choose_alternative_names_other_preferences() -> None:
    assert chosen("score").alternative == (
        "prefer: size selects adapter, 300 kB instead of 2.4 MB;"
        " prefer: memory selects adapter, 200 MB above the backbone instead of 300 MB above the backbone"
    )
    assert "prefer: score selects lora" in chosen("size").alternative


def test_choose_reason_of_a_sole_winner_names_undecided_methods() -> None:
    choice = chosen("score", LORA, IA3, replace(PROBE, undecided=True))
    assert choice.reason.endswith("0.080 lower; undecided: linear_probe, which more trials may bring ahead")


def test_choose_reason_of_a_sole_winner_names_the_gap() -> None:
    choice = chosen("size", LORA, IA3, PROBE)
    assert choice.method == "lora"
    assert (
        choice.reason
        == "lora is better than every other compared method (95 % level): ia3, the closest, is at least 0.080 lower"
    )
    assert choice.alternative == ("if size is limited: ia3, 100 kB instead of 2.4 MB, 0.120 lower")


def test_choose_reason_of_a_sole_finalist_names_the_screening() -> None:
    assert chosen("score", LORA, PROBE).reason == "only lora passed the validation screening"
    counted = [replace(scored, trials=trials) for scored, trials in ((LORA, 2), (PROBE, 1))]
    rests_on = "only lora passed the validation screening, full trials: lora 2, linear_probe 1"
    assert chosen("score", *counted).reason == rests_on
    counted = [replace(scored, trials=1) for scored in (LORA, PROBE)]
    assert chosen("score", *counted).reason.endswith("screening, with 1 full trial of each")
    assert "the cap on finalists cut ia3" in chosen("score", LORA, replace(PROBE, method="ia3", cut=True)).reason
    assert chosen("score", LORA).reason == "lora is the only method that was scored"
    assert "no scored method is notably smaller" in chosen("score", LORA).alternative


def test_choose_without_another_preference_asks_for_more_data() -> None:
    twin = result("twin", 0.81, tied=True, measurements=LORA.measurements)
    assert chosen("score", LORA, twin).alternative == (
        "every preference selects lora; only more test rows or seeds can separate it from twin"
    )


def test_choose_prefers_the_lowest_loss() -> None:
    assert chosen("score", result("a", 3.0, tied=True), result("b", 2.9, tied=True), higher=False).method == "b"


def test_choose_never_prefers_an_unmeasured_cost() -> None:
    unknown = result("unknown", 0.83, tied=True)
    assert chosen("size", unknown, ADAPTER).method == "adapter"
    assert cost_text("size", cost(unknown.measurements, "size")) == "not measured"


def test_pareto_keeps_undominated_methods() -> None:
    worse = result("worse", 0.80, measurements=measurements(size=0.4e6, memory=2e8, latency=0.1))
    assert pareto((LORA, ADAPTER, IA3, worse), MACRO_F1) == {"lora", "adapter", "ia3"}
    twins = (result("a", 0.5, measurements=measurements()), result("b", 0.5, measurements=measurements()))
    assert pareto(twins, MACRO_F1) == {"a", "b"}, "equals do not beat each other"


def test_choose_breaks_full_ties_by_name_in_any_order() -> None:
    twins = [result(name, 0.81, tied=True, measurements=LORA.measurements) for name in ("norm_tuning", "bitfit")]
    for order in (twins, twins[::-1]):
        assert [each.method for each in in_order(order, "latency", MACRO_F1)] == ["bitfit", "norm_tuning"]
        assert chosen("latency", *order).method == "bitfit"
        reason = "bitfit has the better score of those that tie: no added latency once merged (+20% before)"
        assert chosen("latency", *order).reason == f"{reason}, as norm_tuning"


def test_alternative_names_no_adapter_of_about_the_same_size() -> None:
    near = result("ia3", 0.70, measurements=measurements(size=2.3e6))
    assert chosen("score", LORA, near).alternative == "none by size: no scored method is notably smaller"


def test_latency_of_what_merges_is_told_as_it_is_run() -> None:
    assert measured_text("latency", LORA.measurements) == "+20% (none merged)"
    assert measured_text("latency", ADAPTER.measurements) == "+10%"
    assert measured_text("latency", {"mergeable": 1.0}) == "none"
    assert measured_text("memory", ADAPTER.measurements, backbone=1e9) == "1.2 GB"
