from __future__ import annotations

import time

import pytest
import torch

from orchestrator.engine import memory
from orchestrator.engine.memory import MemoryGauge, held_bytes

from .conftest import Lab, train

MEGABYTE = 2**20


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process says it uses: its one element."""
    amount = [0]
    monkeypatch.setattr(memory, "_bytes_in_use", lambda: amount[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return amount


def test_memory_gauge_records_the_peak_above_its_baseline(in_use: list[int]) -> None:
    in_use[0] = 1000
    gauge = MemoryGauge()
    for amount in (1010, 1300, 1200):
        in_use[0] = amount
        gauge.measure()
    assert gauge.peak == 300


def test_memory_gauge_counts_held_bytes_of_the_trial_alone(in_use: list[int]) -> None:
    in_use[0] = 5000
    gauge = MemoryGauge(held=400)
    assert gauge.peak == 400
    in_use[0] = 5050
    gauge.measure()
    assert gauge.peak == 450


def test_memory_of_a_continued_trial_excludes_other_trials(lab: Lab, in_use: list[int]) -> None:
    run = lab.run("lora", stop=2)
    train(run, 2)
    assert run.measurements["peak_memory_bytes"] == 0
    in_use[0] = 10**9
    run.begin_job()
    in_use[0] += 7
    train(run, 2)
    trainable = sum(p.numel() for p in run.attached.trainable().values())
    # parameters, two moments each, and one step counter per parameter tensor, in float32
    assert run.measurements["peak_memory_bytes"] == 4 * (3 * trainable + len(run.attached.trainable())) + 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="it reads the process's own memory")
def test_memory_gauge_sees_the_process_grow_and_shrink() -> None:
    gauge = MemoryGauge()
    block = torch.ones(64 * MEGABYTE // 4)
    gauge.measure()
    assert 60 * MEGABYTE < gauge.peak < 100 * MEGABYTE
    del block
    later = MemoryGauge()
    later.measure()
    assert later.peak < 30 * MEGABYTE


@pytest.mark.skipif(torch.cuda.is_available(), reason="it reads the process's own memory")
def test_memory_gauge_counts_reuse_of_memory_freed_earlier() -> None:
    earlier = [torch.ones(4096) for _ in range(4096)]  # 64 MB in pieces that the C library keeps when they are freed
    pin = earlier[-1]
    del earlier
    gauge = MemoryGauge()
    later = [torch.ones(4096) for _ in range(2048)]
    gauge.measure()
    assert gauge.peak > 24 * MEGABYTE
    assert len(pin) * 2 == sum(len(block) for block in later[:2])  # both are still there


def test_memory_is_measured_while_activations_exist(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.run("lora")
    noted: list[str] = []
    monkeypatch.setattr(run._memory, "measure", lambda: noted.append("gradients" if has_gradients() else "none"))

    def has_gradients() -> bool:
        return any(p.grad is not None for p in run.attached.trainable().values())

    loss = run.forward()
    assert noted == ["none"]
    assert loss.grad_fn is not None
    loss.backward()
    run.finish_step(loss)
    assert noted == ["none", "gradients"]


def test_held_bytes_are_parameters_and_optimizer_state(lab: Lab) -> None:
    run = lab.run("linear_probe")
    parameters = sum(p.numel() * 4 for p in run.attached.trainable().values())
    assert held_bytes(run.attached, run._optimizer) == parameters
    train(run, 1)
    assert held_bytes(run.attached, run._optimizer) == 3 * parameters + 4 * len(run.attached.trainable())


@pytest.mark.skipif(torch.cuda.is_available(), reason="it reads the process's own memory")
def test_memory_gauge_samples_short_peaks_during_a_step() -> None:
    gauge = MemoryGauge()
    before = torch.ones(128 * MEGABYTE // 4)
    del before
    gauge.begin(tokens=10)
    moment, deadline = torch.ones(48 * MEGABYTE // 4), time.monotonic() + 60
    least = moment.nbytes - 2**16  # what else the process frees meanwhile counts too; 608 bytes were seen
    while gauge.peak < least and time.monotonic() < deadline:
        time.sleep(0.001)
    del moment
    gauge.end()
    assert least <= gauge.peak < 80 * MEGABYTE


def test_memory_gauge_ignores_freed_memory_in_the_heap() -> None:
    blocks = [torch.ones(4096) for _ in range(4096)]  # 64 MB in pieces that the C library keeps when they are freed
    gauge = MemoryGauge(held=0)
    pin = blocks[-1]
    del blocks
    gauge.measure()
    assert gauge.peak == 0
    assert pin.numel() == 4096


@pytest.mark.parametrize(
    ("batches", "sampled"), [([8, 8, 8, 8], [1, 1, 0, 0]), ([8, 4, 6, 9, 9], [1, 1, 0, 1, 0]), ([0, 8], [0, 1])]
)
def test_memory_gauge_samples_first_steps_and_longest_batches(
    monkeypatch: pytest.MonkeyPatch, batches: list[int], sampled: list[int]
) -> None:
    joined: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory._sampler, "add", lambda gauge: joined.append(1))
    gauge, sampled_steps = MemoryGauge(), []
    for tokens in batches:
        joined.clear()
        gauge.begin(tokens)
        gauge.end()
        sampled_steps.append(len(joined))
    assert sampled_steps == sampled


def test_memory_sampler_stops_without_gauges() -> None:
    gauge = MemoryGauge()
    gauge.begin(tokens=10)
    assert memory._sampler._running
    gauge.end()
    deadline = time.monotonic() + 60
    while memory._sampler._running and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not memory._sampler._running


def test_memory_of_training_excludes_evaluation(lab: Lab, in_use: list[int]) -> None:
    run = lab.run("lora", stop=2)
    train(run, 1)
    in_use[0] = 10**9
    run.evaluate("validation")
    in_use[0] = 5
    train(run, 1)
    assert run.measurements["peak_memory_bytes"] == 5
