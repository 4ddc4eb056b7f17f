"""The optimizers that methods ask for; the paged one itself needs CUDA, its state does not."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from methods.base.spec import ParameterGroup
from orchestrator.engine import optimizers
from orchestrator.engine.learning_rate import optimizer_groups
from orchestrator.engine.optimizers import make_optimizer, optimizer_tensors, restore_optimizer
from orchestrator.engine.paged_adamw import adamw_8bit

from .conftest import Lab, train

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
MAKES: dict[str, Make] = {
    "adamw": lambda groups: make_optimizer("adamw", groups, 0.1),
    "8bit": lambda groups: adamw_8bit(groups, 0.1, free_bytes=1e12),
    "8bit in pages": lambda groups: adamw_8bit(groups, 0.1, free_bytes=0.0),
}


def parameters() -> list[nn.Parameter]:
    """Two that are large enough for a state of 8 bits, and one that is not."""
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((64, 80), (64, 80), (7,))]


def one_group(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    return optimizer_groups([ParameterGroup(tuple(parameters))], 1e-2)


def two_groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    first, *others = parameters
    return optimizer_groups([ParameterGroup((first,)), ParameterGroup(tuple(others), 2.0)], 1e-2)


def step(trained: list[nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in trained:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_optimizer_state_restores_exactly(make: Make, tmp_path: Path) -> None:
    straight = parameters()
    optimizer = make(two_groups(straight))
    for number in range(6):
        step(straight, optimizer, number)

    paused = parameters()
    first = make(two_groups(paused))
    for number in range(3):
        step(paused, first, number)
    save_file(optimizer_tensors(first), tmp_path / "state.safetensors")
    second = make(two_groups(paused))
    restore_optimizer(second, {**load_file(tmp_path / "state.safetensors"), "parameter:x": torch.ones(1)})
    assert [group["initial_lr"] for group in second.param_groups] == [0.01, 0.02]
    assert {type(state["step"]) for state in second.state.values()} == {
        type(state["step"]) for state in first.state.values()
    }
    for number in range(3, 6):
        step(paused, second, number)

    assert all(torch.equal(first, second) for first, second in zip(paused, straight, strict=True))


def test_paged_optimizer_without_cuda_is_adamw_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    optimizers._warn_of_substitute.cache_clear()
    with caplog.at_level(logging.WARNING):
        optimizers_made = [make_optimizer("paged_adamw_8bit", one_group(parameters()), 0.1) for _ in range(2)]
    assert {type(first) for first in optimizers_made} == {torch.optim.AdamW}
    assert [record.message for record in caplog.records] == [
        "the paged 8-bit AdamW needs CUDA; AdamW with a state in 32 bits is used instead"
    ]
    assert optimizers_made[0].param_groups[0]["weight_decay"] == 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("free_bytes", [0.0, 1e12], ids=["paged", "on the GPU"])
def test_8_bit_optimizer_continues_exactly_from_its_state_on_a_gpu(free_bytes: float) -> None:
    straight, paused = ([nn.Parameter(torch.ones(400, 400, device="cuda"))] for _ in range(2))
    first, optimizer = (adamw_8bit(one_group(trained), 0.1, free_bytes) for trained in (straight, paused))
    generator = torch.Generator("cuda").manual_seed(0)
    gradients = [torch.randn(400, 400, device="cuda", generator=generator) for _ in range(4)]
    for number, gradient in enumerate(gradients):
        if number == 2:
            again = adamw_8bit(one_group(paused), 0.1, free_bytes)
            tensors = {name: tensor.cpu() for name, tensor in optimizer_tensors(optimizer).items()}
            restore_optimizer(again, tensors)
            optimizer = again
            assert bool(getattr(again.state[paused[0]]["state1"], "is_paged", False)) is (not free_bytes)
        for trained, stepped in ((straight, first), (paused, optimizer)):
            trained[0].grad = gradient.clone()
            stepped.step()
    assert torch.equal(straight[0], paused[0])


def test_penalty_of_a_method_is_added_to_the_loss(lab: Lab) -> None:
    with_penalty, without_penalty = lab.run("adalora", orthogonality=1.0), lab.run("adalora", orthogonality=0.0)
    penalty = with_penalty.attached.penalty
    assert penalty is not None
    expected = penalty().item()
    assert train(with_penalty, 1)[0] - train(without_penalty, 1)[0] == pytest.approx(expected, rel=1e-4)
