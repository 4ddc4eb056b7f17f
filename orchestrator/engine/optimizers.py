"""The optimizers that methods ask for, and their state in a checkpoint."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from methods.base.spec import Optimizer

log = logging.getLogger(__name__)
PREFIX = "optimizer:"
SHARED_TABLES = ("qmap1", "qmap2")
"""bitsandbytes has one such table for all parameters. safetensors refuses tensors that share memory, so each parameter
gets a copy in the file."""
PAGED_STATES = ("state1", "state2")


def make_optimizer(kind: Optimizer, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """Build the optimizer that ``Attached.optimizer`` names; without CUDA, AdamW replaces the paged one.

    Args:
        kind: name of the optimizer.
        groups: parameter groups with their rates, from :func:`orchestrator.engine.learning_rate.optimizer_groups`.
        weight_decay: decoupled weight decay, as in AdamW.
    """
    if kind == "paged_adamw_8bit":
        if any(parameter.is_cuda for group in groups for parameter in group["params"]):
            from bitsandbytes.optim import PagedAdamW8bit

            paged: torch.optim.Optimizer = PagedAdamW8bit(groups, weight_decay=weight_decay)
            return paged
        _warn_of_substitute()
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by parameter and name, ready for a safetensors file."""
    return {
        f"{PREFIX}{index}:{name}": value.clone() if name in SHARED_TABLES else value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in _flatten(state).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Set the optimizer's state to what :func:`optimizer_tensors` returned.

    Args:
        optimizer: optimizer over the same parameters.
        tensors: tensors of a checkpoint; names without the optimizer's prefix are ignored.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith(PREFIX):
            index, _, name = key.removeprefix(PREFIX).partition(":")
            is_count = tensor.dtype == torch.int64 and tensor.dim() == 0
            state.setdefault(int(index), {})[name] = int(tensor) if is_count else tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if getattr(optimizer, "is_paged", False):
        _move_to_pages(optimizer)


def _flatten(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return one parameter's state without nesting; bitsandbytes nests a part of it, and counts steps in an int."""
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            flat |= _flatten(value)
        else:
            flat[name] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def _move_to_pages(optimizer: Any) -> None:
    """Copy the large states back into paged memory: ``load_state_dict`` makes ordinary GPU tensors of them."""
    for parameter, state in optimizer.state.items():
        for name in PAGED_STATES:
            if name in state and parameter.is_cuda:
                pages = optimizer.get_state_buffer(parameter, dtype=state[name].dtype)
                state[name] = pages.copy_(state[name])


@cache
def _warn_of_substitute() -> None:
    log.warning("the paged 8-bit AdamW needs CUDA; AdamW with a state in 32 bits is used instead")
