"""What a trial costs, measured by a scripted clock and a scripted memory; and once each by the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.lanes import facts, lane
from orchestrator.lanes.facts import MemoryGauge, held_bytes, latency_facts, overhead
from orchestrator.lanes.lane import Lane
from orchestrator.trials import Job

from .conftest import Lab, train

MEGABYTE = 2**20


class Clock:
    """Stands still but while something is called that takes time."""

    def __init__(self) -> None:
        self.now, self.order = 100.0, ""

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes so long, the first time, the second, ...; the last again and again."""
        left = list(seconds)

        def call() -> None:
            self.order += name
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def measured(bare: tuple[float, ...], adapted: tuple[float, ...], **limits: Any) -> tuple[float, str]:
    clock = Clock()
    found = overhead(clock.taking("b", *bare), clock.taking("a", *adapted), clock=clock, **limits)
    return found, clock.order


@pytest.mark.parametrize(("bare", "adapted", "fraction"), [(2, 3, 0.5), (2, 2, 0.0), (4, 3, -0.25)])
def test_the_overhead_is_a_fraction_of_the_bare_backbones_time(bare: float, adapted: float, fraction: float) -> None:
    assert measured((bare,), (adapted,), seconds=1000)[0] == pytest.approx(fraction)


def test_who_goes_first_alternates_and_the_pairs_are_counted() -> None:
    assert measured((1,), (2,), seconds=1000, pairs=3)[1] == "b" + "abbaab", "one to warm up, and three pairs"


def test_neither_warming_up_nor_a_pair_that_was_disturbed_counts() -> None:
    assert measured((90, 1), (1.5,), seconds=1000, pairs=2)[0] == pytest.approx(0.5)
    assert measured((1,), (1.5, 80, 1.5), seconds=1000)[0] == pytest.approx(0.5)


def test_a_machine_that_slows_down_does_not_look_like_an_adapter() -> None:
    slower = tuple(1.5**n for n in range(12))
    assert measured(slower, slower[1:], seconds=1e9)[0] == pytest.approx(0.0)


def test_no_pair_begins_after_the_time_is_up_but_the_first_two() -> None:
    assert measured((1,), (1.25,), seconds=0.5) == (pytest.approx(0.25), "babba")
    assert measured((1,), (1.25,), seconds=5)[1] == "babbaab"


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_latency_is_measured_on_one_row_and_on_32_in_evaluation_mode(make_lab: Callable[..., Lab], kind: str) -> None:
    lab = make_lab(kind)
    run = lab.run("prompt", tokens=4)
    seen: set[tuple[int, bool, bool]] = set()
    run.attached.train(True)
    run.attached.module.register_forward_pre_hook(
        lambda module, _, kwargs: seen.add((len(kwargs["input_ids"]), module.training, torch.is_grad_enabled())),
        with_kwargs=True,
    )
    stream = torch.get_rng_state()
    found = latency_facts(run.attached, lab.backbone, lab.rows)
    assert seen == {(1, False, False), (32, False, False)}
    assert found.keys() == {"latency_overhead_1", "latency_overhead_32"}
    assert all(-1 < value < 100 for value in found.values())
    assert torch.equal(torch.get_rng_state(), stream)


def test_rows_of_middling_length_come_again_where_there_are_few(lab: Lab) -> None:
    assert len(lab.rows.typical(100)["input_ids"]) == 100
    widths = sorted(lab.rows.batch(torch.tensor([row]).numpy())["input_ids"].shape[1] for row in range(40))
    assert lab.rows.typical(1)["input_ids"].shape == (1, widths[19])


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process says it uses: its one element."""
    amount = [0]
    monkeypatch.setattr(facts, "_in_use", lambda: amount[0])
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
    assert run.facts["peak_memory_bytes"] == 0
    in_use[0] = 10**9
    run.go_on()
    in_use[0] += 7
    train(run, 2)
    own = sum(p.numel() for p in run.attached.trainable().values())
    # parameters, two moments each, and one step counter per parameter tensor, in float32
    assert run.facts["peak_memory_bytes"] == 4 * (3 * own + len(run.attached.trainable())) + 7


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


@pytest.mark.parametrize(("method", "merges"), [("lora", 1.0), ("linear_probe", 1.0), ("adapter", 0.0)])
def test_facts_say_whether_it_merges_and_what_a_step_takes(
    lab: Lab, tmp_path: Path, method: str, merges: float
) -> None:
    run = lab.run(method)
    assert run.facts["mergeable"] == merges
    train(run, 4)
    run.facts["train_seconds"] = 6.0
    run.save(tmp_path / "step", resumable=True)
    assert run.facts["seconds_per_step"] == 1.5
    back = lab.run(method, start=4)
    back.restore(tmp_path / "step")
    assert back.facts == run.facts


def test_latency_is_measured_once_at_the_end_or_on_the_test_split(
    lab: Lab, here: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def measure(*arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        return {"latency_overhead_1": 0.25, "latency_overhead_32": 0.125}

    monkeypatch.setattr(lane, "latency_facts", measure)

    def answer(job: Job) -> dict[str, float]:
        run = here.begin(job)
        train(run, job.stop - run.step)
        return here.end(run).facts

    first = lab.job("lora", stop=4)
    assert "latency_overhead_1" not in answer(first)
    last = Job(**{**vars(first), "start": 4, "stop": 12, "checkpoint": "checkpoints/mail/lora/0/step-4"})
    assert answer(last)["latency_overhead_32"] == 0.125
    test = Job(**{**vars(last), "start": 12, "checkpoint": "checkpoints/mail/lora/0/step-12", "split": "test"})
    assert answer(test)["latency_overhead_1"] == 0.25, "it travels with the checkpoint"
    assert len(calls) == 1


def test_a_lane_does_not_charge_a_trial_for_those_between_its_rungs(lab: Lab, here: Lane, in_use: list[int]) -> None:
    first = lab.job("lora", stop=2)
    run = here.begin(first)
    train(run, 2)
    here.end(run)
    in_use[0] = 10**9
    again = here.begin(Job(**{**vars(first), "start": 2, "stop": 4, "checkpoint": "checkpoints/mail/lora/0/step-2"}))
    train(again, 1)
    assert again.facts["peak_memory_bytes"] < 10**6


def test_what_a_trial_keeps_between_steps_is_counted(lab: Lab) -> None:
    run = lab.run("linear_probe")
    parameters = sum(p.numel() * 4 for p in run.attached.trainable().values())
    assert held_bytes(run.attached, run._optimizer) == parameters
    train(run, 1)
    assert held_bytes(run.attached, run._optimizer) == 3 * parameters + 4 * len(run.attached.trainable())
