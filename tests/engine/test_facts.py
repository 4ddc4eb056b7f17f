"""What a trial costs, measured by a scripted clock and a scripted memory; and once each by the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.common.trial_types import Job
from orchestrator.engine import measurements as measurements
from orchestrator.engine.measurements import latency_facts, overhead
from orchestrator.lanes.lane import Lane

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


@pytest.mark.parametrize(("method", "merges"), [("lora", 1.0), ("linear_probe", 1.0), ("adapter", 0.0)])
def test_facts_say_whether_it_merges_and_what_a_step_takes(
    lab: Lab, tmp_path: Path, method: str, merges: float
) -> None:
    run = lab.run(method)
    assert run.measurements["mergeable"] == merges
    train(run, 4)
    run.measurements["train_seconds"] = 6.0
    run.save(tmp_path / "step", resumable=True)
    assert run.measurements["seconds_per_step"] == 1.5
    back = lab.run(method, start=4)
    back.restore(tmp_path / "step")
    assert back.measurements == run.measurements


def test_latency_is_measured_once_at_the_end_or_on_the_test_split(
    lab: Lab, here: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def measure(*arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        return {"latency_overhead_1": 0.25, "latency_overhead_32": 0.125}

    monkeypatch.setattr(measurements, "latency_facts", measure)

    def answer(job: Job) -> dict[str, float]:
        run = here.begin(job)
        train(run, job.stop - run.step)
        return here.end(run).write().measurements

    first = lab.job("lora", stop=4)
    assert "latency_overhead_1" not in answer(first)
    last = Job(**{**vars(first), "start": 4, "stop": 12, "checkpoint": "checkpoints/mail/lora/0/step-4"})
    assert answer(last)["latency_overhead_32"] == 0.125
    test = Job(**{**vars(last), "start": 12, "checkpoint": "checkpoints/mail/lora/0/step-12", "split": "test"})
    assert answer(test)["latency_overhead_1"] == 0.25, "it travels with the checkpoint"
    assert len(calls) == 1
    assert answer(lab.job("lora", 1, learning_rate=1e-4))["latency_overhead_1"] == 0.25
    assert len(calls) == 1, "of its form, one was measured"
    answer(lab.job("lora", 2, rank=2))
    answer(lab.job("ia3", 3))
    assert len(calls) == 3, "and none of these"
