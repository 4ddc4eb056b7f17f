"""The optimizers that methods ask for, and their state in a checkpoint."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from methods.base.spec import Optimizer
from orchestrator.engine.memory import available_bytes
from orchestrator.engine.out_of_memory import FreeMemory, retry_with_released_memory

log = logging.getLogger(__name__)
PREFIX = "optimizer:"
SHARED_TABLES = ("qmap1", "qmap2")
"""bitsandbytes has one such table for all parameters. safetensors refuses tensors that share memory, so each parameter
gets a copy in the file."""
PAGED_STATES = ("state1", "state2")


def make_optimizer(kind: Optimizer, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """Build the optimizer that ``Attached.optimizer`` names.

    The paged one takes pages only where the GPU's memory is short: they cost a synchronization with every use. Without
    CUDA, AdamW replaces it.

    Args:
        kind: name of the optimizer.
        groups: parameter groups with their rates, from :func:`orchestrator.engine.learning_rate.optimizer_groups`.
        weight_decay: decoupled weight decay, as in AdamW.
    """
    if kind == "paged_adamw_8bit":
        device = next(parameter.device for group in groups for parameter in group["params"])
        if device.type == "cuda":
            from orchestrator.engine.paged_adamw import adamw_8bit

            return adamw_8bit(groups, weight_decay, available_bytes(device))
        _warn_of_substitute()
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def step_optimizer(optimizer: torch.optim.Optimizer, free_memory: FreeMemory, device: torch.device) -> None:
    """Update the parameters; if the optimizer's state does not fit, release memory and finish the update.

    An optimizer allocates the state of a parameter at its first update, when it may have updated others already.

    Args:
        optimizer: optimizer whose parameters have their gradients.
        free_memory: as for :func:`orchestrator.engine.out_of_memory.release_memory`.
        device: device of the parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if all(p in optimizer.state for p in parameters):
        optimizer.step()
        return
    counts = {p: _update_count(optimizer, p) for p in parameters}

    def update_remaining() -> None:
        updated = {p: p.grad for p in parameters if _update_count(optimizer, p) > counts[p]}
        for p in parameters:
            if p in updated:
                p.grad = None
            elif not counts[p]:
                optimizer.state.pop(p, None)  # perhaps a part of its state alone
        optimizer.step()
        for p, gradient in updated.items():
            p.grad = gradient

    retry_with_released_memory(update_remaining, free_memory, device)


def _update_count(optimizer: torch.optim.Optimizer, parameter: Tensor) -> int:
    return int(optimizer.state[parameter].get("step", 0)) if parameter in optimizer.state else 0


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
    if hasattr(optimizer, "to_gpu"):  # bitsandbytes leaves states in 8 bits where the file was read to
        optimizer.to_gpu()
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
