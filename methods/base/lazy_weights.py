"""Weights of packed layers that show shape, dtype and device without being unpacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only


class LazyWeight(Tensor):
    """A weight with shape, dtype and device; the first operation on its numbers unpacks it."""

    unpack: Callable[[], Tensor]

    @staticmethod
    def of(shape: tuple[int, int], device: torch.device, unpack: Callable[[], Tensor]) -> LazyWeight:
        """Return a float32 weight of ``shape`` whose numbers ``unpack`` returns."""
        weight = Tensor._make_wrapper_subclass(LazyWeight, shape, dtype=torch.float32, device=device)
        weight.unpack = unpack
        return weight

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without the operation that it is called with
        cls, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run any operation on the unpacked weights; ``detach`` reads no numbers."""
        if func is torch.ops.aten.detach.default:
            return cls.of(tuple(args[0].shape), args[0].device, args[0].unpack)
        args, kwargs = tree_map_only(LazyWeight, lambda weight: weight.unpack(), (args, kwargs or {}))
        return func(*args, **kwargs)


@contextmanager
def lazy_weights(view: nn.Module, *, random_numbers: bool = False) -> Iterator[None]:
    """Show the weights of the packed layers of ``view`` as lazy weights inside the context.

    `peft` reads device and dtype of each layer's weight some twenty times while it wraps the layer, and every time a
    packed layer would unpack its whole weight: seconds for a large model.

    Args:
        view: a view of the backbone.
        random_numbers: whether layers on the meta device, which have no numbers, show random ones; needed for a method
            whose adapter's shapes depend on them.
    """
    device = next(view.parameters()).device
    random_numbers = random_numbers and device.type == "meta"
    properties = (
        {"weight": property(_random), "bias": property(_zeros)} if random_numbers else {"weight": _lazy(device)}
    )
    layers = [
        m for m in view.modules() if isinstance(m, nn.Linear) and (random_numbers or "weight" not in m._parameters)
    ]
    lazy_classes = {kind: type(f"Lazy{kind.__name__}", (kind,), properties) for kind in {type(m) for m in layers}}
    for layer in layers:
        layer.__class__ = lazy_classes[type(layer)]
    try:
        yield
    finally:
        for module in view.modules():  # includes copies that peft made of these layers meanwhile
            if type(module) in lazy_classes.values():
                module.__class__ = type(module).__bases__[0]


def _lazy(device: torch.device) -> property:
    def weight(layer: nn.Linear) -> Tensor:
        packed_class: Any = type(layer).__bases__[0]
        unpack: Callable[[nn.Linear], Tensor] = packed_class.weight.fget
        return LazyWeight.of((layer.out_features, layer.in_features), device, lambda: unpack(layer))

    return property(weight)


def _random(layer: nn.Linear) -> Tensor:
    return torch.rand(layer.out_features, layer.in_features, generator=torch.Generator().manual_seed(0))


def _zeros(layer: nn.Linear) -> Tensor | None:
    return None if layer._parameters.get("bias") is None else torch.zeros(layer.out_features)
