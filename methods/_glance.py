"""Look at packed layers without unpacking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def glance(view: nn.Module) -> Iterator[None]:
    """While inside, a packed layer shows a weight of the right shape, dtype and device with nothing in it.

    `peft` asks every layer that it wraps some twenty times for its weight's device and dtype, and each time a packed
    layer would unpack all of it: seconds for a large model.
    """
    device = next(view.parameters()).device
    packed = [m for m in view.modules() if isinstance(m, nn.Linear) and "weight" not in m._parameters]
    kinds = {kind: _glanced(kind, device) for kind in {type(layer) for layer in packed}}
    for layer in packed:
        layer.__class__ = kinds[type(layer)]
    try:
        yield
    finally:
        for layer in packed:
            layer.__class__ = type(layer).__bases__[0]


def _glanced(kind: type[nn.Linear], device: torch.device) -> type[nn.Linear]:
    def weight(layer: nn.Linear) -> Tensor:
        return torch.zeros((), device=device).expand(layer.out_features, layer.in_features)

    return type(f"Glanced{kind.__name__}", (kind,), {"weight": property(weight)})
