"""What a lane does on a GPU: the packed backbone there, trials alone and together, and what they take of its memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.backbone.frozen import FrozenLinear, compute_dtype
from orchestrator.backbone.shared import load
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.step import train_step
from orchestrator.engine.trial_run import TrialRun

from .conftest import DROPOUT, LABELS, Lab, equal, state, train

DEVICE = "cuda"
METHODS = ("lora", "ia3", "adapter", "prompt", "last_layers", "linear_probe")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture
def gpu_lab(lab: Lab) -> Lab:
    """The same backbone on the GPU, computing in what a lane would choose."""
    backbone = load(
        lab.folder / "tiny.safetensors",
        "classification",
        name="tiny",
        dtype=compute_dtype("auto", torch.device(DEVICE)),
        labels=LABELS,
        device=DEVICE,
        original=lab.folder / "original.safetensors",
    )
    return replace(lab, backbone=backbone)


def test_gpu_dequantizes_the_same_weights(lab: Lab, gpu_lab: Lab) -> None:
    pairs = zip(lab.backbone.model.modules(), gpu_lab.backbone.model.modules(), strict=True)
    frozen = [(first, second) for first, second in pairs if isinstance(first, FrozenLinear)]
    assert frozen
    for first, second in frozen:
        assert second.weight.device.type == DEVICE
        torch.testing.assert_close(second.weight.cpu(), first.weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_gpu_trial_starts_like_the_processors(lab: Lab, gpu_lab: Lab, method: str) -> None:
    undisturbed: dict[str, Any] = {"dropout": 0.0} if method in DROPOUT else {}
    before, run = gpu_lab.backbone.checksum(), gpu_lab.run(method, **undisturbed)
    start = state(run)
    [first, *_] = train(run, 4)
    assert first == pytest.approx(train(lab.run(method, **undisturbed), 1)[0], rel=5e-2)
    assert not equal(start, state(run))
    assert all(parameter.device.type == DEVICE for parameter in run.parameters)
    assert gpu_lab.backbone.checksum() == before
    assert run.measurements["peak_memory_bytes"] > 0


def test_gpu_pack_trains_like_solo_trials(gpu_lab: Lab) -> None:
    together, alone = ([gpu_lab.run(method, k) for k, method in enumerate(METHODS)] for _ in range(2))
    for _ in range(3):
        assert not train_step(together)
        assert not [failure for run in alone for failure in train_step([run])]
    for first, second in zip(together, alone, strict=True):
        for name, value in state(second).items():
            torch.testing.assert_close(state(first)[name], value, rtol=2e-2, atol=2e-3)


def test_gpu_pack_skips_the_frozen_prefix(gpu_lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """As in a lane, whose packed steps cache the activations of batches that are still on the processor."""
    prefix = FrozenPrefix(gpu_lab.backbone)
    jobs = [gpu_lab.job(method, k) for k, method in enumerate(METHODS)]
    runs = [TrialRun(job, gpu_lab.backbone, gpu_lab.dataset, gpu_lab.training, prefix=prefix) for job in jobs]
    for _ in range(3):
        assert not train_step(runs)
    assert prefix.cached_bytes > 0
    assert "a packed step failed" not in caplog.text


def test_gpu_trial_resumes_from_its_checkpoint_exactly(gpu_lab: Lab) -> None:
    full, first, second = (gpu_lab.run("lora") for _ in range(3))
    train(full, 12)
    train(first, 6)
    folder = gpu_lab.folder / "halfway"
    folder.mkdir()
    first.save(folder, resumable=True)
    second.restore(folder)
    train(second, 6)
    assert equal(state(second), state(full))
