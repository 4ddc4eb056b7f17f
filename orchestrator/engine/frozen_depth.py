"""How many of the lowest blocks a method leaves as they are in the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.backbone.frozen import FrozenLinear


@dataclass(frozen=True)
class DepthBounds:
    """The largest number of blocks that can be skipped if a method changes a certain module.

    Args:
        inside: bound if it changes the module's computation: the blocks that have ended when it is first called.
        after: bound if it changes the module's result only: the blocks that have ended when it first returns.
    """

    inside: int
    after: int


@dataclass(frozen=True)
class CallOrder:
    """The order in which a forward pass calls the modules of a model.

    Args:
        model: bare model, without any method.
        bounds: bounds of every module, by name. A module that the recorded pass did not call has them from its place in
            the model: no block from its own on can be skipped if it is in a block, all can if it is in the head, and
            none if it is anywhere else.
    """

    model: nn.Module
    bounds: dict[str, DepthBounds]

    @classmethod
    def record(cls, model: nn.Module, blocks: Sequence[str], head: Sequence[str]) -> CallOrder:
        """Record the calls of one forward pass over two rows.

        All bounds are 0 if a block takes or returns more than one hidden state: its output could then not be replaced
        by a cached tensor.

        Args:
            model: bare model.
            blocks: names of its blocks, from the input up.
            head: names of the modules of the head.
        """
        recorded, can_skip = _record_calls(model, blocks)
        bounds = {}
        for name, _ in model.named_modules():
            number = next((k for k, block in enumerate(blocks) if _is_inside(name, block)), 0)
            place = len(blocks) if any(_is_inside(name, part) for part in head) else number
            bounds[name] = recorded.get(name, DepthBounds(place, place)) if can_skip else DepthBounds(0, 0)
        return cls(model, bounds)

    def frozen_depth(self, view: nn.Module, active: Sequence[nn.Module]) -> int:
        """Return how many of the lowest blocks compute the same in a view as in the bare model.

        Everything that runs before the last of them ends (embeddings, masks) is the same as well.

        Args:
            view: view of the model with a method attached.
            active: modules that are in training mode while the method trains.
        """
        view_modules, active_ids = dict(view.named_modules()), {id(module) for module in active}
        depths = [max(bound.after for bound in self.bounds.values())]
        for name, module in self.model.named_modules():
            other = view_modules.get(name)
            if other is None or id(other) in active_ids or not is_unchanged(module, other):
                depths.append(self.bounds[name].inside)
            elif len(other._forward_hooks) != len(module._forward_hooks):
                depths.append(self.bounds[name].after)
        return min(depths)


def _record_calls(model: nn.Module, blocks: Sequence[str]) -> tuple[dict[str, DepthBounds], bool]:
    """Return the bounds of all called modules, and whether every block takes one state and returns one."""
    blocks_before: dict[str, int] = {}
    bounds: dict[str, DepthBounds] = {}
    ended_blocks: list[bool] = []

    def begin(name: str) -> Any:
        def hook(*_: Any) -> None:
            blocks_before.setdefault(name, len(ended_blocks))

        return hook

    def end(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if name in blocks:
                ended_blocks.append(_maps_state_to_state(args, kwargs, output))
            bounds.setdefault(name, DepthBounds(blocks_before[name], len(ended_blocks)))

        return hook

    handles = []
    for name, module in model.named_modules():
        handles += [module.register_forward_pre_hook(begin(name))]
        handles += [module.register_forward_hook(end(name), with_kwargs=True)]
    ids = torch.ones(2, 4, dtype=torch.long, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    return bounds, len(ended_blocks) == len(blocks) and all(ended_blocks)


def _maps_state_to_state(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    state = kwargs.get("hidden_states", args[0] if args else None)
    result, *rest = output if isinstance(output, tuple) else (output,)
    same_shape = isinstance(state, Tensor) and isinstance(result, Tensor) and state.shape == result.shape
    return same_shape and all(item is None for item in rest)


def is_unchanged(module: nn.Module, other: nn.Module) -> bool:
    """Return whether a module of a view computes what its original does, its submodules and forward hooks aside.

    Both have the same type, tensors, submodule names and number of pre-hooks, and ``forward`` is not replaced.
    """
    return (
        type(module) is type(other)
        and "forward" not in other.__dict__
        and module._modules.keys() == other._modules.keys()
        and len(module._forward_pre_hooks) == len(other._forward_pre_hooks)
        and _tensor_ids(module) == _tensor_ids(other)
    )


def _tensor_ids(module: nn.Module) -> list[tuple[str, int]]:
    tensors = [*module._parameters.items(), *module._buffers.items()]
    frozen = [("frozen", module.frozen)] if isinstance(module, FrozenLinear) else []
    return [(name, id(value)) for name, value in (*tensors, *frozen)]


def _is_inside(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")
