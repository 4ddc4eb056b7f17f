"""The gradient norms of all trials of a pack in few calls, and one transfer from the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from orchestrator.engine.data_parallel import Trainable

TrialT = TypeVar("TrialT", bound=Trainable)


def gradient_norm(trial: Trainable) -> Tensor:
    """Return the norm of all gradients of a trial, a tensor without dimensions; 0 if there is none."""
    return nn.utils.get_total_norm(_gradients(trial))


def losses_and_norms(losses: Mapping[TrialT, Tensor]) -> dict[TrialT, tuple[Tensor, Tensor]]:
    """Return each trial's loss and gradient norm in host memory; the norm is that of :func:`gradient_norm`.

    Args:
        losses: loss of each trial, a tensor without dimensions; the gradients are in place.
    """
    gradients = [_gradients(trial) for trial in losses]
    together = [gradient for own in gradients for gradient in own]
    stacked = torch.stack(torch._foreach_norm(together)) if together else torch.zeros(0)
    totals = [torch.linalg.vector_norm(own) for own in stacked.split([len(own) for own in gradients])]
    values = torch.stack([*losses.values(), *totals]).cpu().unbind()
    return dict(zip(losses, zip(values[: len(losses)], values[len(losses) :], strict=True), strict=True))


def _gradients(trial: Trainable) -> list[Tensor]:
    return [p.grad for p in trial.parameters if p.grad is not None]
