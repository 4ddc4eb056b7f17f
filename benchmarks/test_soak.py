from __future__ import annotations

import pytest

from benchmarks.soak import Sample, growth


def sample(trials: int, memory: float) -> Sample:
    return Sample(trials, {"all": {"pss_bytes": memory, "handles": 50.0, "processes": 5.0}})


def test_soak_compares_the_last_tenth_with_what_follows_the_first_hundred() -> None:
    samples = [sample(trials, 900.0 if trials < 100 else 1000.0 + trials) for trials in range(0, 1001, 10)]
    grown = growth(samples, "all")
    assert grown["pss_bytes"] == {"first": 1150.0, "last": 1955.0, "growth": pytest.approx(0.7)}
    assert grown["handles"]["growth"] == grown["processes"]["growth"] == 0.0


def test_soak_says_nothing_of_too_few_trials() -> None:
    assert growth([sample(trials, 1000.0) for trials in range(0, 101, 10)], "all") == {}
    assert growth([], "all") == {}
