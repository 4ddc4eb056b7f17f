"""The optimizers that methods ask for, and what a paused trial keeps of them."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from methods.base.spec import Optimizer

LOG = logging.getLogger(__name__)
PREFIX = "optimizer:"
SHARED = ("qmap1", "qmap2")  # one table for all parameters, which a safetensors file must hold for each
PAGED = ("state1", "state2")


def make_optimizer(
    kind: Optimizer, groups: list[dict[str, Any]], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build what ``Attached.optimizer`` names; AdamW stands in for the paged one where there is no CUDA.

    Args:
        kind: of the optimizer.
        groups: as torch takes them, with at least one parameter.
        learning_rate: of every group that has none of its own.
        weight_decay: decoupled, as in AdamW.
    """
    if kind == "paged_adamw_8bit":
        if any(parameter.is_cuda for group in groups for parameter in group["params"]):
            from bitsandbytes.optim import PagedAdamW8bit

            paged: torch.optim.Optimizer = PagedAdamW8bit(groups, lr=learning_rate, weight_decay=weight_decay)
            return paged
        _say_what_stands_in()
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state, by parameter and name, fit for a safetensors file."""
    return {
        f"{PREFIX}{index}:{name}": value.clone() if name in SHARED else value
        for index, own in optimizer.state_dict()["state"].items()
        for name, value in _flat(own).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take back what :func:`optimizer_tensors` gave; other names in ``tensors`` are left alone."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith(PREFIX):
            index, _, name = key.removeprefix(PREFIX).partition(":")
            whole = tensor.dtype == torch.int64 and tensor.dim() == 0
            state.setdefault(int(index), {})[name] = int(tensor) if whole else tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if getattr(optimizer, "is_paged", False):
        _page_again(optimizer)


def _flat(own: dict[str, Any]) -> dict[str, Tensor]:
    """One parameter's state; bitsandbytes nests a part of it, and counts steps without a tensor."""
    flat: dict[str, Tensor] = {}
    for name, value in own.items():
        if isinstance(value, dict):
            flat |= _flat(value)
        else:
            flat[name] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def _page_again(optimizer: Any) -> None:
    """Bring the large parts of the state back into pages: as tensors of the GPU's they would stay there."""
    for parameter, own in optimizer.state.items():
        for name in PAGED:
            if name in own and parameter.is_cuda:
                pages = optimizer.get_state_buffer(parameter, dtype=own[name].dtype)
                own[name] = pages.copy_(own[name])


@cache
def _say_what_stands_in() -> None:
    LOG.warning("the paged 8-bit AdamW needs CUDA; AdamW with a state in 32 bits stands in for it")
