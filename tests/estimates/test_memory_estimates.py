from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.estimates import Corrections, Rates, StepCost, peak_bytes

COST = StepCost(adapter=10, optimizer=20, activations=100, passing=50, operations=4e9, traffic=1e9, calls=1000)


def test_a_trial_alone_needs_all_its_parts() -> None:
    assert COST.peak == peak_bytes([COST]) == 180
    assert peak_bytes([]) == 0


def test_what_passes_is_there_for_one_trial_of_a_pack_at_a_time() -> None:
    assert peak_bytes([COST, replace(COST, passing=70), COST]) == 3 * 130 + 70


def test_a_factor_is_the_usual_ratio_of_the_method() -> None:
    corrections = Corrections()
    assert corrections.factor("lora") == 1
    for observed in (110, 120, 500):
        corrections.tell("lora", 100, observed)
    assert corrections.factor("lora") == pytest.approx(1.2)
    assert corrections.factor("ia3") == 1


def test_running_out_of_memory_raises_the_factor_at_once_and_for_good() -> None:
    corrections = Corrections()
    corrections.tell("lora", 100, 90)
    corrections.tell("lora", 100, 150, fitted=False)
    corrections.tell("lora", 100, 90)
    assert corrections.factor("lora") == pytest.approx(1.5)


def test_old_ratios_are_forgotten() -> None:
    corrections = Corrections()
    for observed in (*[300] * 20, *[100] * 8):
        corrections.tell("lora", 100, observed)
    assert corrections.factor("lora") == 1


def test_nothing_is_learned_of_a_method_that_was_not_estimated() -> None:
    corrections = Corrections()
    corrections.tell("hard_prompt", 0, 100)
    assert corrections.factor("hard_prompt") == 1


def test_seconds_are_products_and_what_lies_between() -> None:
    assert Rates(operations=2e9, bytes=1e10, calls=1e4).seconds(COST) == pytest.approx(2 + 0.1 + 0.1)
