"""A trial's learning rate: the initial rate of each parameter group, times a schedule over the optimizer steps.

The initial rate is the hyperparameter ``learning_rate`` times the group's multiplier, which the method chooses. The
names are torch's: ``initial_lr`` stays as it is, and ``lr`` is what the optimizer's next step uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from methods.base.spec import ParameterGroup


def optimizer_groups(groups: Sequence[ParameterGroup], learning_rate: float) -> list[dict[str, Any]]:
    """Return a method's parameter groups as torch takes them, each with its initial rate; at least one group.

    Args:
        groups: groups of the method's trainable parameters.
        learning_rate: the trial's hyperparameter.
    """
    if not groups:  # torch refuses an optimizer without parameters
        return [{"params": [nn.Parameter(torch.zeros(0))], "lr": 0.0, "initial_lr": 0.0}]
    rates = [learning_rate * group.multiplier for group in groups]
    return [
        {"params": list(group.parameters), "lr": rate, "initial_lr": rate}
        for group, rate in zip(groups, rates, strict=True)
    ]


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate for the next step to its initial rate times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def schedule(step: int, total: int, warmup: float) -> float:
    """Return the factor of the learning rate at a step.

    It rises linearly during the warm-up, then falls linearly to 0 at ``total``.

    Args:
        step: number of steps already done.
        total: number of steps of the whole schedule.
        warmup: fraction of ``total`` over which it rises.
    """
    rise = math.ceil(warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return (total - step) / max(1, total - rise)
