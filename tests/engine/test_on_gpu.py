"""What a lane does on a GPU: the packed backbone there, trials alone and together, and what they take of its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orchestrator.backbone.frozen import FrozenLinear, compute_dtype
from orchestrator.backbone.shared import load
from orchestrator.engine.step import step

from .conftest import DROPOUT, LABELS, Lab, equal, state, train

DEVICE = "cuda"
METHODS = ("lora", "ia3", "adapter", "prompt", "last_layers", "linear_probe")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture
def there(lab: Lab) -> Lab:
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


def test_packed_weights_mean_the_same_there(lab: Lab, there: Lab) -> None:
    pairs = zip(lab.backbone.model.modules(), there.backbone.model.modules(), strict=True)
    frozen = [(one, other) for one, other in pairs if isinstance(one, FrozenLinear)]
    assert frozen
    for one, other in frozen:
        assert other.weight.device.type == DEVICE
        torch.testing.assert_close(other.weight.cpu(), one.weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_begins_as_on_the_processor_and_leaves_the_backbone_as_it_was(
    lab: Lab, there: Lab, method: str
) -> None:
    undisturbed = {"dropout": 0.0} if method in DROPOUT else {}
    before, run = there.backbone.checksum(), there.run(method, **undisturbed)
    start = state(run)
    [first, *_] = train(run, 4)
    assert first == pytest.approx(train(lab.run(method, **undisturbed), 1)[0], rel=5e-2)
    assert not equal(start, state(run))
    assert all(parameter.device.type == DEVICE for parameter in run.parameters)
    assert there.backbone.checksum() == before
    assert run.measurements["peak_memory_bytes"] > 0


def test_a_pack_takes_the_steps_that_each_takes_alone(there: Lab) -> None:
    together, alone = ([there.run(method, k) for k, method in enumerate(METHODS)] for _ in range(2))
    for _ in range(3):
        assert not step(together)
        assert not [failure for run in alone for failure in step([run])]
    for one, other in zip(together, alone, strict=True):
        for name, value in state(other).items():
            torch.testing.assert_close(state(one)[name], value, rtol=2e-2, atol=2e-3)


def test_a_trial_goes_on_from_its_checkpoint_as_if_nothing_had_been(there: Lab) -> None:
    whole, first, second = (there.run("lora") for _ in range(3))
    train(whole, 12)
    train(first, 6)
    folder = there.folder / "halfway"
    folder.mkdir()
    first.save(folder, resumable=True)
    second.restore(folder)
    train(second, 6)
    assert equal(state(second), state(whole))
