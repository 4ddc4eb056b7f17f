"""Which of the tied methods, why, and what would change it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.selection.recommend import Choice, amount, choose, cost, pareto

from .small_evidence import entry, measurements

LORA = entry("lora", 0.82, tied=True, measurements=measurements(size=2.4e6, memory=3e8, latency=0.2, merges=True))
ADAPTER = entry("adapter", 0.81, tied=True, measurements=measurements(size=0.3e6, memory=2e8, latency=0.1))
IA3 = entry("ia3", 0.70, gap=0.08, measurements=measurements(size=0.1e6))
PROBE = entry("linear_probe", 0.60, measurements=measurements(size=0.01e6), reason="far behind")


def chosen(prefer: Any, *entries: Any, higher: bool = True) -> Choice:
    return choose(entries or (LORA, ADAPTER, IA3), prefer, higher_is_better=higher)


@pytest.mark.parametrize(
    ("prefer", "method", "words"),
    [
        ("score", "lora", "lora has the best score of the 2 methods that cannot be told apart."),
        (
            "size",
            "adapter",
            "adapter is the smallest of the 2 methods that cannot be told apart: 300 kB against 2.4 MB",
        ),
        ("memory", "adapter", "leanest"),
        ("latency", "lora", "no added latency against +10% latency of adapter"),
        ("training_time", "lora", "quickest"),
    ],
)
def test_the_preference_decides_among_the_tied_alone(prefer: Any, method: str, words: str) -> None:
    found = chosen(prefer)
    assert found.method == method
    assert words in found.reason


def test_what_would_change_it_names_the_other_preferences() -> None:
    assert chosen("score").alternative == (
        "prefer: size would choose adapter (300 kB against 2.4 MB);"
        " prefer: memory would choose adapter (200 MB against 300 MB)."
    )
    assert "prefer: score would choose lora" in chosen("size").alternative


def test_a_method_alone_says_how_far_the_next_is_and_what_a_limit_would_choose() -> None:
    found = chosen("size", LORA, IA3, PROBE)
    assert found.method == "lora"
    assert (
        found.reason == "lora is better than every other method beyond doubt: ia3, the next, is at least 0.080 behind."
    )
    assert found.alternative == (
        "A limit on size would: ia3 is the best of the smaller ones (100 kB against 2.4 MB), 0.120 behind."
    )


def test_who_is_alone_in_contention_says_so() -> None:
    assert chosen("score", LORA, PROBE).reason == "lora is alone: no other method was in contention."
    assert chosen("score", LORA).reason == "lora is alone: there is nothing to compare it with."
    assert "nothing that was scored is smaller" in chosen("score", LORA).alternative


def test_when_everything_speaks_for_one_only_more_data_could_change_it() -> None:
    twin = entry("twin", 0.81, tied=True, measurements=LORA.measurements)
    assert chosen("score", LORA, twin).alternative == (
        "No preference would change it; only more test rows or seeds could part it from twin."
    )


def test_the_lowest_loss_is_the_best() -> None:
    assert chosen("score", entry("a", 3.0, tied=True), entry("b", 2.9, tied=True), higher=False).method == "b"


def test_what_was_not_measured_is_never_the_cheapest() -> None:
    unknown = entry("unknown", 0.83, tied=True)
    assert chosen("size", unknown, ADAPTER).method == "adapter"
    assert amount("size", cost(unknown.measurements, "size")) == "not measured"


def test_pareto_keeps_what_nothing_beats() -> None:
    worse = entry("worse", 0.80, measurements=measurements(size=0.4e6, memory=2e8, latency=0.1))
    assert pareto((LORA, ADAPTER, IA3, worse), higher_is_better=True) == {"lora", "adapter", "ia3"}
    twins = (entry("a", 0.5, measurements=measurements()), entry("b", 0.5, measurements=measurements()))
    assert pareto(twins, higher_is_better=True) == {"a", "b"}, "equals do not beat each other"
