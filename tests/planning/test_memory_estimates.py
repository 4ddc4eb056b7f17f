from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.planning.estimates import DeviceThroughput, StepCost, peak_bytes

COST = StepCost(adapter=10, optimizer=20, activations=100, transient_bytes=50, flops=4e9, bytes_moved=1e9, calls=1000)


def test_a_trial_alone_needs_all_its_parts() -> None:
    assert COST.peak == peak_bytes([COST]) == 180
    assert peak_bytes([]) == 0


def test_what_passes_is_there_for_one_trial_of_a_pack_at_a_time() -> None:
    assert peak_bytes([COST, replace(COST, transient_bytes=70), COST]) == 3 * 130 + 70


def test_seconds_are_products_and_what_lies_between() -> None:
    assert DeviceThroughput(flops=2e9, bytes=1e10, calls=1e4).seconds(COST) == pytest.approx(2 + 0.1 + 0.1)
