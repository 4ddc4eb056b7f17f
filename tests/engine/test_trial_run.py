import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import methods
from methods.base.spec import MethodError
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.trial_run import DivergedError, TrialRun
from orchestrator.tasks.batches import EVALUATION_TOKENS

from .conftest import Lab, equal, state, train

TRAINING = [name for name in methods.names() if methods.get(name).trains]


@pytest.mark.parametrize("method", TRAINING)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_trial_resumed_elsewhere_equals_uninterrupted_training(
    make_lab: Callable[[str], Lab], kind: str, method: str, tmp_path: Path
) -> None:
    lab = make_lab(kind)
    try:
        straight = lab.run(method)
    except MethodError as error:
        pytest.skip(f"cannot sit here: {error}")
    losses = train(straight, 12)

    paused = lab.run(method, stop=5)
    first = train(paused, 5)
    paused.evaluate("validation")
    (tmp_path / "step").mkdir()
    paused.save(tmp_path / "step", resumable=True)
    torch.manual_seed(99)  # another process, another random stream
    continued = lab.run(method, start=5)
    continued.restore(tmp_path / "step")
    assert continued.step == 5
    rest = train(continued, 7)

    assert first + rest == losses
    assert equal(state(continued), state(straight))
    assert losses[0] != losses[-1]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_evaluation_leaves_training_unchanged(lab: Lab, method: str) -> None:
    quiet, watched = lab.run(method), lab.run(method)
    losses = train(quiet, 6)
    losses_with_evaluation = []
    for _ in range(6):
        losses_with_evaluation += train(watched, 1)
        watched.evaluate("validation")
    assert losses_with_evaluation == losses
    assert equal(state(watched), state(quiet))


def test_dropout_is_on_in_training_and_off_in_evaluation(lab: Lab) -> None:
    dropping, plain = train(lab.run("lora"), 3), train(lab.run("lora", dropout=0.0), 3)
    assert dropping[0] == plain[0], "fresh, it adds nothing to drop"
    assert dropping[2] != plain[2]
    run = lab.run("lora")
    train(run, 3)
    assert run.evaluate("validation").predictions.equals(run.evaluate("validation").predictions)


def test_finished_trial_is_scored_from_its_adapter_alone(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora")
    train(run, 12)
    run.save(tmp_path / "step", resumable=False)
    assert not (tmp_path / "step" / "state.safetensors").exists()
    scored = lab.run("lora", seed=7)
    scored.restore(tmp_path / "step")
    assert scored.step == 12
    assert scored.evaluate("test").predictions.equals(run.evaluate("test").predictions)
    assert scored.measurements["train_seconds"] == run.measurements["train_seconds"]


def test_saved_state_is_safetensors_and_json(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora", stop=2)
    train(run, 2)
    run.save(tmp_path / "step", resumable=True)
    kinds = {file.suffix for file in (tmp_path / "step").rglob("*") if file.is_file()}
    assert kinds <= {".safetensors", ".json", ".md"}
    assert run.measurements["adapter_bytes"] > 0


def test_trial_counts_the_parameters_of_the_head_apart(lab: Lab) -> None:
    probe, lora = lab.run("linear_probe"), lab.run("lora")
    head = probe.measurements["head_parameters"]
    assert head == sum(p.numel() for p in probe.attached.trainable().values()) > 0, "it trains nothing else"
    assert lora.measurements["head_parameters"] == head < lora.measurements["trainable_parameters"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_loss_raises_and_leaves_parameters_unchanged(lab: Lab, bad: float) -> None:
    run = lab.run("lora")
    train(run, 2)
    before = state(run)
    loss = run.forward() * bad
    loss.backward()
    with pytest.raises(DivergedError, match="at step 3"):
        run.finish_step(loss)
    assert equal(state(run), before)
    assert run.step == 2


def test_nan_gradient_raises_and_leaves_parameters_unchanged(lab: Lab) -> None:
    run = lab.run("lora")
    before = state(run)
    loss = run.forward()
    loss.backward()
    next(iter(run.attached.trainable().values())).grad.view(-1)[0] = math.nan  # type: ignore[union-attr]
    with pytest.raises(DivergedError):
        run.finish_step(loss)
    assert equal(state(run), before)


def test_gradients_are_clipped(lab: Lab) -> None:
    run = lab.run("lora", learning_rate=1e-3)
    loss = run.forward()
    (loss * 1e6).backward()
    norms = []
    original = run._optimizer.step

    def step(*arguments: Any) -> Any:
        gradients = [p.grad for p in run.attached.trainable().values() if p.grad is not None]
        norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
        return original(*arguments)

    run._optimizer.step = step  # type: ignore[assignment, method-assign]
    run.finish_step(loss)
    assert norms == pytest.approx([lab.training.clip_norm], rel=1e-4)


def test_rewind_repeats_the_same_rows(lab: Lab) -> None:
    run, smooth = lab.run("linear_probe"), lab.run("linear_probe")
    run.forward()
    run.rewind()
    assert train(run, 3) == train(smooth, 3)


def test_all_trials_read_the_same_rows_in_order(lab: Lab) -> None:
    streams = [
        np.concatenate(list(lab.run(method, number, batch_size=size)._batches))
        for number, (method, size) in enumerate([("lora", 3), ("ia3", 3), ("full", 4), ("prefix", 8)])
    ]
    shortest = min(len(stream) for stream in streams)
    assert shortest == 36
    for stream in streams[1:]:
        assert np.array_equal(stream[:shortest], streams[0][:shortest])


def test_trials_differ_by_seed_alone(lab: Lab) -> None:
    assert train(lab.run("lora", 1), 3) == train(lab.run("lora", 1), 3)
    assert train(lab.run("lora", 1), 3) != train(lab.run("lora", 2), 3)


def test_trial_leaves_the_backbone_unchanged(lab: Lab) -> None:
    before = lab.backbone.checksum()
    for method in TRAINING:
        run = lab.run(method)
        train(run, 2)
        run.evaluate("validation")
    assert lab.backbone.checksum() == before


def test_trial_tells_of_each_pass_through_its_model(lab: Lab) -> None:
    passes: list[str] = []
    run = TrialRun(
        lab.job("lora"), lab.backbone, lab.dataset, prefix=FrozenPrefix(lab.backbone), on_pass=lambda: passes.append("")
    )
    train(run, 3)
    assert len(passes) == 3
    run.evaluate("validation")
    batches = lab.dataset._evaluation_batches("validation", EVALUATION_TOKENS)
    assert len(passes) == 3 + len(batches)
