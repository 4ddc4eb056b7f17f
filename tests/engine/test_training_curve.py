"""A trial's training curve: against sums made by hand, and continued in another process."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.engine.learning_rate import schedule
from orchestrator.engine.step import train_step
from orchestrator.engine.training_curve import POINTS, TrainingCurve

from .conftest import Lab, train


def test_curve_of_a_trial_has_its_losses_rates_and_norms(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    original = torch.nn.utils.get_total_norm

    def noted(*args: object, **kwargs: object) -> torch.Tensor:
        norm = original(*args, **kwargs)  # type: ignore[arg-type]
        norms.append(norm.item())
        return norm

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", noted)
    run = lab.run("lora", warmup=0.25)
    losses = train(run, 12)
    curve = run.curve.since(0)
    assert curve["step"] == list(range(1, 13))
    assert curve["loss"] == pytest.approx(losses, rel=1e-4)
    assert curve["gradient_norm"] == pytest.approx(norms, rel=1e-4)
    assert curve["learning_rate"] == pytest.approx([1e-2 * schedule(step, 12, 0.25) for step in range(12)], rel=1e-4)


def test_curve_of_a_long_trial_averages_all_steps_in_few_points() -> None:
    steps = 1_050
    curve = TrainingCurve(steps)
    for step in range(1, steps + 1):
        curve.add(step, loss=step, learning_rate=step / 10, gradient_norm=2 * step, tokens=64, train_seconds=step - 1.0)
    points = curve.since(0)
    every = math.ceil(steps / POINTS)
    assert len(points["step"]) == steps // every <= POINTS
    assert points["step"][:2] == [every, 2 * every]
    assert points["loss"][1] == sum(range(every + 1, 2 * every + 1)) / every
    assert points["gradient_norm"][1] == 2 * sum(range(every + 1, 2 * every + 1)) / every
    assert points["learning_rate"][1] == 2 * every / 10
    assert points["tokens_per_second"][1] == 64, "one step a second"
    assert curve.since(steps) == {}


def test_curve_throughput_is_that_of_the_whole_pack(lab: Lab) -> None:
    runs = [lab.run("lora", number) for number in range(3)]
    seconds = tokens = 0.0
    for _ in range(6):
        before = [run.measurements["train_seconds"] for run in runs]
        assert not train_step(runs)
        seconds = sum(run.measurements["train_seconds"] - was for run, was in zip(runs, before, strict=True))
        tokens = sum(run.tokens for run in runs)
    assert not train_step(runs)
    (rate,) = runs[0].curve.since(6)["tokens_per_second"]
    assert rate == pytest.approx(tokens / seconds, rel=1e-3)


def test_curve_goes_on_from_a_partial_state(make_lab: Callable[[str], Lab], tmp_path: Path) -> None:
    lab = make_lab("encoder")
    whole = lab.run("lora")
    train(whole, 12)
    left = lab.run("lora")
    train(left, 5)
    left.save(tmp_path / "state", resumable=True)
    taken_over = lab.run("lora")
    taken_over.restore(tmp_path / "state")
    train(taken_over, 7)
    for name in ("step", "loss", "learning_rate", "gradient_norm"):
        assert taken_over.curve.since(0)[name] == whole.curve.since(0)[name]


def test_curve_of_the_next_job_begins_after_its_checkpoint(lab: Lab, tmp_path: Path) -> None:
    first = lab.run("lora", stop=5)
    train(first, 5)
    first.save(tmp_path / "step", resumable=True)
    second = lab.run("lora", start=5)
    second.restore(tmp_path / "step")
    train(second, 3)
    assert second.curve.since(5)["step"] == [6, 7, 8]
