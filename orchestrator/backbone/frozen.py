"""The linear layer that every trial shares: it never changes, and it can be run for several trials at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.backbone.weights import FrozenWeight

Product = Callable[["FrozenLinear", Tensor, Tensor | None], Tensor]
_product: Product | None = None


class FrozenProduct(torch.autograd.Function):
    """``x @ weight.T + bias``, unpacking the weight in forward and again in backward instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: FrozenWeight, dtype: torch.dtype, bias: Tensor | None) -> Tensor:
        """``x`` of shape ``(..., in)`` to ``(..., out)`` in its own dtype, computed in ``dtype``."""
        ctx.weight, ctx.dtype = weight, dtype
        return linear(x.to(dtype), weight.dequantize(dtype), bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of ``x`` alone."""
        return (gradient.to(ctx.dtype) @ ctx.weight.dequantize(ctx.dtype)).to(gradient.dtype), None, None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias`` in the dtype of ``x`` and ``weight``."""
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


class FrozenLinear(nn.Linear):
    """``y = x W^T + b`` with a packed ``W`` that nothing can write.

    It is an ``nn.Linear``, so that `peft` accepts it, but ``weight`` is a read-only property that unpacks on demand.
    The bias is an ordinary frozen parameter of shape ``(out,)`` and is added within the product. One that a method
    trains is added outside of it, in the input's own precision.

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
        return self.frozen.dequantize(torch.float32).detach()

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., in)`` to ``(..., out)``, in the dtype of ``x``."""
        bias = self._parameters["bias"]
        if bias is not None and bias.requires_grad:
            return self._matmul(x, None) + bias.to(x.dtype)
        y = self._matmul(x, bias)
        return y.clone() if y._is_view() else y  # a part of several trials' product; methods may add to it in place

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x W^T``, and the bias if it is given."""
        y: Tensor = FrozenProduct.apply(x, self.frozen, self.compute_dtype, bias)
        return y

    def _matmul(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return self.product(x, bias) if _product is None else _product(self, x, bias)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, frozen={type(self.frozen).__name__}"


@contextmanager
def override_matmul(product: Product) -> Iterator[None]:
    """While inside, every frozen layer asks ``product(layer, x, bias)`` for its ``x W^T``, and the bias if any."""
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
