from __future__ import annotations

import time

import pytest
import torch

from orchestrator.common.trial_types import Job
from orchestrator.engine import memory
from orchestrator.engine.memory import MemoryGauge, held_bytes
from orchestrator.lanes.lane import Lane

from .conftest import Lab, train

MEGABYTE = 2**20


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process says it uses: its one element."""
    amount = [0]
    monkeypatch.setattr(memory, "_in_use", lambda: amount[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return amount


def test_memory_is_the_most_above_what_stood_before(in_use: list[int]) -> None:
    in_use[0] = 1000
    gauge = MemoryGauge()
    for amount in (1010, 1300, 1200):
        in_use[0] = amount
        gauge.note()
    assert gauge.peak == 300


def test_what_the_trial_held_already_counts_and_what_others_hold_does_not(in_use: list[int]) -> None:
    in_use[0] = 5000
    gauge = MemoryGauge(held=400)
    assert gauge.peak == 400
    in_use[0] = 5050
    gauge.note()
    assert gauge.peak == 450


def test_a_trial_that_goes_on_is_not_charged_for_others(lab: Lab, in_use: list[int]) -> None:
    run = lab.run("lora", stop=2)
    train(run, 2)
    assert run.measurements["peak_memory_bytes"] == 0
    in_use[0] = 10**9
    run.go_on()
    in_use[0] += 7
    train(run, 2)
    own = sum(p.numel() for p in run.attached.trainable().values())
    # parameters, two moments each, and one step counter per parameter tensor, in float32
    assert run.measurements["peak_memory_bytes"] == 4 * (3 * own + len(run.attached.trainable())) + 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="it reads the process's own memory")
def test_the_process_is_seen_to_grow_and_to_shrink() -> None:
    gauge = MemoryGauge()
    block = torch.ones(64 * MEGABYTE // 4)
    gauge.note()
    assert 60 * MEGABYTE < gauge.peak < 100 * MEGABYTE
    del block
    later = MemoryGauge()
    later.note()
    assert later.peak < 30 * MEGABYTE


@pytest.mark.skipif(torch.cuda.is_available(), reason="it reads the process's own memory")
def test_what_a_former_trial_left_does_not_serve_the_next_unseen() -> None:
    former = [torch.ones(4096) for _ in range(4096)]  # 64 MB in pieces that the C library keeps when they are freed
    pin = former[-1]
    del former
    gauge = MemoryGauge()
    later = [torch.ones(4096) for _ in range(2048)]
    gauge.note()
    assert gauge.peak > 24 * MEGABYTE
    assert len(pin) * 2 == sum(len(block) for block in later[:2])  # both are still there


def test_activations_are_there_when_memory_is_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.run("lora")
    noted: list[str] = []
    monkeypatch.setattr(run._memory, "note", lambda: noted.append("gradients" if has_gradients() else "none"))

    def has_gradients() -> bool:
        return any(p.grad is not None for p in run.attached.trainable().values())

    loss = run.forward()
    assert noted == ["none"]
    assert loss.grad_fn is not None
    loss.backward()
    run.finish_step(loss)
    assert noted == ["none", "gradients"]


def test_what_a_trial_keeps_between_steps_is_counted(lab: Lab) -> None:
    run = lab.run("linear_probe")
    parameters = sum(p.numel() * 4 for p in run.attached.trainable().values())
    assert held_bytes(run.attached, run._optimizer) == parameters
    train(run, 1)
    assert held_bytes(run.attached, run._optimizer) == 3 * parameters + 4 * len(run.attached.trainable())


def test_a_lane_does_not_charge_a_trial_for_those_between_its_rungs(lab: Lab, here: Lane, in_use: list[int]) -> None:
    first = lab.job("lora", stop=2)
    run = here.begin(first)
    train(run, 2)
    here.end(run).write()
    in_use[0] = 10**9
    again = here.begin(Job(**{**vars(first), "start": 2, "stop": 4, "checkpoint": "checkpoints/mail/lora/0/step-2"}))
    train(again, 1)
    assert again.measurements["peak_memory_bytes"] < 10**6


@pytest.mark.skipif(torch.cuda.is_available(), reason="it reads the process's own memory")
def test_what_is_there_for_a_moment_only_is_seen_and_what_was_there_before_is_not() -> None:
    gauge = MemoryGauge()
    before = torch.ones(128 * MEGABYTE // 4)
    del before
    gauge.begin(tokens=10)
    moment, seen = torch.ones(48 * MEGABYTE // 4), time.monotonic() + 60
    while gauge.peak < moment.nbytes and time.monotonic() < seen:
        time.sleep(0.001)
    del moment
    gauge.end()
    assert 48 * MEGABYTE <= gauge.peak < 80 * MEGABYTE


def test_what_heaps_keep_is_not_counted() -> None:
    kept = [torch.ones(4096) for _ in range(4096)]  # 64 MB in pieces that the C library keeps when they are freed
    gauge = MemoryGauge(held=0)
    pin = kept[-1]
    del kept
    gauge.note()
    assert gauge.peak == 0
    assert pin.numel() == 4096


@pytest.mark.parametrize(
    ("batches", "watched"), [([8, 8, 8, 8], [1, 1, 0, 0]), ([8, 4, 6, 9, 9], [1, 1, 0, 1, 0]), ([0, 8], [0, 1])]
)
def test_first_steps_and_the_longest_batches_are_watched(
    monkeypatch: pytest.MonkeyPatch, batches: list[int], watched: list[int]
) -> None:
    joined: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory._watch, "join", lambda gauge: joined.append(1))
    gauge, found = MemoryGauge(), []
    for tokens in batches:
        joined.clear()
        gauge.begin(tokens)
        gauge.end()
        found.append(len(joined))
    assert found == watched


def test_nobody_looks_once_no_gauge_wants_to_know() -> None:
    gauge = MemoryGauge()
    gauge.begin(tokens=10)
    assert memory._watch._looking
    gauge.end()
    looking = time.monotonic() + 60
    while memory._watch._looking and time.monotonic() < looking:
        time.sleep(0.001)
    assert not memory._watch._looking


def test_what_evaluation_needs_is_no_part_of_training(lab: Lab, in_use: list[int]) -> None:
    run = lab.run("lora", stop=2)
    train(run, 1)
    in_use[0] = 10**9
    run.evaluate("validation")
    in_use[0] = 5
    train(run, 1)
    assert run.measurements["peak_memory_bytes"] == 5
