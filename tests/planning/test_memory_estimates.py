"""Peak memory of packs, and time of steps, from given costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.planning.estimates import DeviceThroughput, StepCost, peak_bytes
from orchestrator.planning.estimates.throughput import PROBES

COST = StepCost(
    adapter_bytes=10,
    optimizer_bytes=20,
    activation_bytes=100,
    transient_bytes=50,
    flops=4e9,
    bytes_moved=1e9,
    calls=1000,
)


def test_peak_bytes_of_one_trial_is_its_sum() -> None:
    assert COST.peak_bytes == peak_bytes([COST]) == 180
    assert peak_bytes([]) == 0


def test_peak_bytes_of_a_pack_counts_transient_bytes_once() -> None:
    assert peak_bytes([COST, replace(COST, transient_bytes=70), COST]) == 3 * 130 + 70


def test_throughput_probes_of_a_gpu_outlast_launches_and_caches() -> None:
    probes = PROBES["cuda"]
    assert 2 * probes.matrix_size**3 / 1e15 > 1e-3  # seconds on a GPU of 1e15 FLOPs per second
    assert 4 * probes.stream_elements > 5 * 100e6  # bytes; the largest caches have 100 MB
    assert probes.small_calls > 100


def test_throughput_adds_time_of_products_bytes_and_calls() -> None:
    assert DeviceThroughput(flops_per_second=2e9, bytes_per_second=1e10, calls_per_second=1e4).seconds(
        COST
    ) == pytest.approx(2 + 0.1 + 0.1)
