"""Latency overheads by a scripted clock and by a real one, and what a trial stores of its measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.common.trial_types import TrialKey
from orchestrator.engine import task_dataset
from orchestrator.engine.measurements import latency_overheads, measure_if_possible, overhead

from .conftest import Lab, train

MEGABYTE = 2**20


class Clock:
    """A clock that advances only in calls that take time."""

    def __init__(self) -> None:
        self.now, self.order = 100.0, ""

    def __call__(self) -> float:
        return self.now

    def taking(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a call that takes these seconds, one after the other; the last of them from then on."""
        durations = list(seconds)

        def call() -> None:
            self.order += name
            self.now += durations.pop(0) if len(durations) > 1 else durations[0]

        return call


def overhead_and_order(bare: tuple[float, ...], adapted: tuple[float, ...], **limits: Any) -> tuple[float, str]:
    clock = Clock()
    result = overhead(clock.taking("b", *bare), clock.taking("a", *adapted), clock=clock, **limits)
    return result, clock.order


@pytest.mark.parametrize(("bare", "adapted", "fraction"), [(2, 3, 0.5), (2, 2, 0.0), (4, 3, -0.25)])
def test_overhead_is_a_fraction_of_the_bare_time(bare: float, adapted: float, fraction: float) -> None:
    assert overhead_and_order((bare,), (adapted,), seconds=1000)[0] == pytest.approx(fraction)


def test_overhead_alternates_the_order_and_counts_pairs() -> None:
    assert overhead_and_order((1,), (2,), seconds=1000, pairs=3)[1] == "b" + "abbaab", "a warm-up and three pairs"


def test_overhead_ignores_the_warm_up_and_a_disturbed_pair() -> None:
    assert overhead_and_order((90, 1), (1.5,), seconds=1000, pairs=2)[0] == pytest.approx(0.5)
    assert overhead_and_order((1,), (1.5, 80, 1.5), seconds=1000)[0] == pytest.approx(0.5)


def test_overhead_is_zero_on_a_machine_that_slows_down() -> None:
    slower = tuple(1.5**n for n in range(12))
    assert overhead_and_order(slower, slower[1:], seconds=1e9)[0] == pytest.approx(0.0)


def test_overhead_times_two_pairs_even_beyond_the_limit() -> None:
    overhead, order = overhead_and_order((1,), (1.25,), seconds=0.5)
    assert overhead == pytest.approx(0.25)
    assert order == "babba"
    assert overhead_and_order((1,), (1.25,), seconds=5)[1] == "babbaab"


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_latency_is_measured_on_1_and_32_rows(make_lab: Callable[..., Lab], kind: str) -> None:
    lab = make_lab(kind)
    run = lab.run("prompt", tokens=4)
    calls: set[tuple[int, bool, bool]] = set()
    run.attached.train(True)
    run.attached.module.register_forward_pre_hook(
        lambda module, _, kwargs: calls.add((len(kwargs["input_ids"]), module.training, torch.is_grad_enabled())),
        with_kwargs=True,
    )
    stream = torch.get_rng_state()
    result = latency_overheads(run.attached, lab.backbone, lab.dataset)
    assert calls == {(1, False, False), (32, False, False)}
    assert result.keys() == {"latency_overhead_1", "latency_overhead_32"}
    assert all(-1 < value < 100 for value in result.values())
    assert torch.equal(torch.get_rng_state(), stream)


def test_median_length_batch_repeats_rows_of_a_small_split(lab: Lab) -> None:
    assert len(lab.dataset.median_length_batch(100)["input_ids"]) == 100
    widths = sorted(lab.dataset.batch(torch.tensor([row]).numpy())["input_ids"].shape[1] for row in range(40))
    assert lab.dataset.median_length_batch(1)["input_ids"].shape == (1, widths[19])


def test_median_length_batch_is_cut_to_the_tokens_of_scoring(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_dataset, "EVALUATION_TOKENS", 96)
    batch = lab.dataset.median_length_batch(32)
    assert batch["input_ids"].shape == (32, 3)
    assert bool(batch["attention_mask"].all())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), RuntimeError("anything")])
def test_measurement_that_fails_is_left_out(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def measure() -> dict[str, float]:
        raise error

    trial = TrialKey("mail/lora", 3)
    assert measure_if_possible("latency", measure, trial, torch.device("cpu")) == {}
    (record,) = caplog.records
    assert record.getMessage() == (
        f"trial mail/lora/3 has no latency, which could not be measured: {type(error).__name__}: {error}"
    )
    assert measure_if_possible("latency", lambda: {"latency": 1.0}, trial, torch.device("cpu")) == {"latency": 1.0}


@pytest.mark.parametrize(("method", "merges"), [("lora", 1.0), ("linear_probe", 1.0), ("adapter", 0.0)])
def test_measurements_hold_mergeable_and_seconds_per_step(lab: Lab, tmp_path: Path, method: str, merges: float) -> None:
    run = lab.run(method)
    assert run.measurements["mergeable"] == merges
    train(run, 4)
    run.measurements["train_seconds"] = 6.0
    run.save(tmp_path / "step", resumable=True)
    assert run.measurements["seconds_per_step"] == 1.5
    restored = lab.run(method, start=4)
    restored.restore(tmp_path / "step")
    assert restored.measurements == run.measurements


def test_every_pass_of_the_bare_backbone_in_a_latency_measurement_is_told(lab: Lab) -> None:
    told: list[None] = []
    latency_overheads(lab.run("lora").attached, lab.backbone, lab.dataset, lambda: told.append(None))
    assert len(told) >= 2 * 2, "at least twice on 1 and on 32 rows"
