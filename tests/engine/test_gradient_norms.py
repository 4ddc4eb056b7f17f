"""Gradient norms of a pack against those of each trial alone, to the bit."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from orchestrator.engine.gradient_norms import gradient_norm, losses_and_norms


@dataclass(eq=False)
class Trial:
    parameters: list[nn.Parameter] = field(default_factory=list)


def trial(*gradients: Tensor | None) -> Trial:
    parameters = []
    for gradient in gradients:
        parameters.append(nn.Parameter(torch.zeros(3) if gradient is None else torch.zeros_like(gradient)))
        parameters[-1].grad = gradient
    return Trial(parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_a_pack_are_those_of_its_trials(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    trials = [
        trial(torch.randn(5, 7), None, torch.randn(11)),
        trial(None),
        trial(torch.randn(4, dtype=dtype)),
        trial(torch.randn(2, 2, dtype=dtype), torch.randn(9)),
    ]
    losses = {each: torch.tensor(float(number)) for number, each in enumerate(trials)}
    results = losses_and_norms(losses)
    assert [loss.item() for loss, _ in results.values()] == [0, 1, 2, 3]
    assert [norm.item() for _, norm in results.values()] == [gradient_norm(each).item() for each in trials]
    assert results[trials[1]][1].item() == 0


def test_norms_of_trials_without_gradients_are_zero() -> None:
    results = losses_and_norms({trial(None): torch.tensor(1.0), trial(): torch.tensor(2.0)})
    assert [norm.item() for _, norm in results.values()] == [0, 0]


def test_norm_that_is_not_finite_is_its_trials_alone() -> None:
    results = losses_and_norms(
        {trial(torch.tensor([float("nan")])): torch.tensor(1.0), trial(torch.ones(4)): torch.tensor(1.0)}
    )
    first, second = (norm.item() for _, norm in results.values())
    assert first != first
    assert second == 2
