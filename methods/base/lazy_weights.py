"""Look at packed layers without unpacking them, unless somebody reads the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only


class LazyWeight(Tensor):
    """A weight whose shape, dtype and device are known, and that is unpacked by the first operation on its numbers."""

    open: Callable[[], Tensor]

    @staticmethod
    def of(shape: tuple[int, int], device: torch.device, unpack: Callable[[], Tensor]) -> LazyWeight:
        """A float32 weight of ``shape`` that ``unpack`` gives."""
        made = Tensor._make_wrapper_subclass(LazyWeight, shape, dtype=torch.float32, device=device)
        made.open = unpack
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without the operation that it is called with
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run any operation on the unpacked weights; ``detach`` needs none."""
        if func is torch.ops.aten.detach.default:
            return cls.of(tuple(args[0].shape), args[0].device, args[0].open)
        opened = tree_map_only(LazyWeight, lambda weight: weight.open(), (args, kwargs or {}))
        return func(*opened[0], **opened[1])


@contextmanager
def lazy_weights(view: nn.Module, *, made_up: bool = False) -> Iterator[None]:
    """While inside, a packed layer shows a weight that is unpacked when its numbers are asked for.

    `peft` asks every layer that it wraps some twenty times for its weight's device and dtype, and each time a packed
    layer would unpack all of it: seconds for a large model.

    Args:
        view: of the backbone.
        made_up: show random numbers where the backbone is a skeleton without any; for a method whose adapter depends
            on them.
    """
    device = next(view.parameters()).device
    made_up = made_up and device.type == "meta"
    shown = {"weight": property(_random), "bias": property(_zeros)} if made_up else {"weight": _unopened(device)}
    layers = [m for m in view.modules() if isinstance(m, nn.Linear) and (made_up or "weight" not in m._parameters)]
    glanced = {kind: type(f"Glanced{kind.__name__}", (kind,), shown) for kind in {type(layer) for layer in layers}}
    for layer in layers:
        layer.__class__ = glanced[type(layer)]
    try:
        yield
    finally:
        for module in view.modules():  # copies that were made meanwhile among them
            if type(module) in glanced.values():
                module.__class__ = type(module).__bases__[0]


def _unopened(device: torch.device) -> property:
    def weight(layer: nn.Linear) -> Tensor:
        packed: Any = type(layer).__bases__[0]
        unpack: Callable[[nn.Linear], Tensor] = packed.weight.fget
        return LazyWeight.of((layer.out_features, layer.in_features), device, lambda: unpack(layer))

    return property(weight)


def _random(layer: nn.Linear) -> Tensor:
    return torch.rand(layer.out_features, layer.in_features, generator=torch.Generator().manual_seed(0))


def _zeros(layer: nn.Linear) -> Tensor | None:
    return None if layer._parameters.get("bias") is None else torch.zeros(layer.out_features)
