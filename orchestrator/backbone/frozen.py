"""The linear layer that every trial shares: it never changes, and it can be run for several trials at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.backbone.weights import FrozenWeight

Product = Callable[["FrozenLinear", Tensor], Tensor]
_product: Product | None = None


class FrozenProduct(torch.autograd.Function):
    """``x @ weight.T``, unpacking the weight in forward and again in backward instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: FrozenWeight, dtype: torch.dtype) -> Tensor:
        """``x`` of shape ``(..., in)`` to ``(..., out)`` in its own dtype, computed in ``dtype``."""
        ctx.weight, ctx.dtype = weight, dtype
        return F.linear(x.to(dtype), weight.dense(dtype)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of ``x`` alone."""
        return (gradient.to(ctx.dtype) @ ctx.weight.dense(ctx.dtype)).to(gradient.dtype), None, None


class FrozenLinear(nn.Linear):
    """``y = x W^T + b`` with a packed ``W`` that nothing can write.

    It is an ``nn.Linear``, so that `peft` accepts it, but ``weight`` is a read-only property that unpacks on demand.
    The bias is an ordinary frozen parameter of shape ``(out,)`` and is added outside the shared product, in the
    input's own precision, since a method may train it.

    Args:
        frozen: the packed weight of shape ``(out, in)``, shared by all views.
        bias: of shape ``(out,)``, or none.
        dtype: what the product is computed in.
        position: the layer's place in the order of the model's modules.
    """

    def __init__(self, frozen: FrozenWeight, bias: nn.Parameter | None, dtype: torch.dtype, position: int) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = frozen.shape
        self.frozen, self.compute_dtype, self.position = frozen, dtype, position
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """A dense float32 copy, for methods that need the weight itself. Writing to it changes nothing."""
        return self.frozen.dense(torch.float32).detach()

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., in)`` to ``(..., out)``, in the dtype of ``x``."""
        y = self.product(x) if _product is None else _product(self, x)
        shared = y._is_view()  # a part of several trials' product
        if (bias := self._parameters["bias"]) is not None:
            return y + bias.to(y.dtype) if shared else y.add_(bias.to(y.dtype))
        return y.clone() if shared else y  # methods may add to it in place

    def product(self, x: Tensor) -> Tensor:
        """``x W^T`` without the bias."""
        y: Tensor = FrozenProduct.apply(x, self.frozen, self.compute_dtype)
        return y

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, frozen={type(self.frozen).__name__}"


@contextmanager
def products_by(product: Product) -> Iterator[None]:
    """While inside, every frozen layer asks ``product(layer, x)`` for its ``x W^T``."""
    global _product
    before, _product = _product, product
    try:
        yield
    finally:
        _product = before


def compute_dtype(asked: str, device: torch.device) -> torch.dtype:
    """What to multiply in: as asked, or bfloat16 where the hardware is fast at it and float32 elsewhere."""
    if asked != "auto":
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
