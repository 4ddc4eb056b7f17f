"""How far up a method has left its view of the backbone as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.backbone.frozen import FrozenLinear


@dataclass(frozen=True)
class Bounds:
    """How many blocks can be skipped at most if a module does something of its own.

    Args:
        within: while it runs: the blocks that have ended when it is first called.
        after: with its result alone: the blocks that have ended when it first returns.
    """

    within: int
    after: int


@dataclass(frozen=True)
class CallOrder:
    """When a pass calls which module of a model.

    Args:
        model: as it is without any method.
        bounds: of every module, by name. What no pass has called counts as called where it stands: with its block,
            and outside of the blocks at the very beginning, or with the head.
    """

    model: nn.Module
    bounds: dict[str, Bounds]

    @classmethod
    def of(cls, model: nn.Module, blocks: Sequence[str], head: Sequence[str]) -> CallOrder:
        """Let two rows pass through a model and watch; nothing can be skipped where blocks give more than a state."""
        called, passable = _watched(model, blocks)
        bounds = {}
        for name, _ in model.named_modules():
            number = next((k for k, block in enumerate(blocks) if _within(name, block)), 0)
            place = len(blocks) if any(_within(name, part) for part in head) else number
            bounds[name] = called.get(name, Bounds(place, place)) if passable else Bounds(0, 0)
        return cls(model, bounds)

    def frozen_depth(self, view: nn.Module, active: Sequence[nn.Module]) -> int:
        """So many blocks, and all that runs before they end, are in ``view`` what they are in the model.

        Args:
            view: with a method attached.
            active: modules that are in training mode while it trains.
        """
        own, training = dict(view.named_modules()), {id(module) for module in active}
        levels = [max(bound.after for bound in self.bounds.values())]
        for name, module in self.model.named_modules():
            other = own.get(name)
            if other is None or id(other) in training or not _same(module, other):
                levels.append(self.bounds[name].within)
            elif len(other._forward_hooks) != len(module._forward_hooks):
                levels.append(self.bounds[name].after)
        return min(levels)


def _watched(model: nn.Module, blocks: Sequence[str]) -> tuple[dict[str, Bounds], bool]:
    """The bounds of what was called, and whether every block takes a state and gives one."""
    begun: dict[str, int] = {}
    found: dict[str, Bounds] = {}
    passed: list[bool] = []

    def begin(name: str) -> Any:
        def hook(*_: Any) -> None:
            begun.setdefault(name, len(passed))

        return hook

    def end(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if name in blocks:
                passed.append(_passes(args, kwargs, output))
            found.setdefault(name, Bounds(begun[name], len(passed)))

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
    return found, len(passed) == len(blocks) and all(passed)


def _passes(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    state = kwargs.get("hidden_states", args[0] if args else None)
    result, *rest = output if isinstance(output, tuple) else (output,)
    given = isinstance(state, Tensor) and isinstance(result, Tensor) and state.shape == result.shape
    return given and all(item is None for item in rest)


def _same(module: nn.Module, other: nn.Module) -> bool:
    """Of one type, over the same tensors, with nothing put in, before or in the place of its call."""
    return (
        type(module) is type(other)
        and "forward" not in other.__dict__
        and module._modules.keys() == other._modules.keys()
        and len(module._forward_pre_hooks) == len(other._forward_pre_hooks)
        and _tensors(module) == _tensors(other)
    )


def _tensors(module: nn.Module) -> list[tuple[str, int]]:
    own = [*module._parameters.items(), *module._buffers.items()]
    frozen = [("frozen", module.frozen)] if isinstance(module, FrozenLinear) else []
    return [(name, id(value)) for name, value in (*own, *frozen)]


def _within(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")
