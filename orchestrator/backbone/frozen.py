"""The linear layer that all trials share: read-only, and computable for several trials at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.backbone.weights import FourBitWeight, FrozenWeight


class SharedLayer(Protocol):
    """A layer that several trials have in common: a frozen linear layer, or output embeddings."""

    @property
    def frozen(self) -> FrozenWeight:
        """The weight, the same object for all trials."""
        ...

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the product."""
        ...

    @property
    def position(self) -> int:
        """Index of the layer in the order of a forward pass."""
        ...

    def matmul(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x W^T``, plus the bias if there is one, for this layer alone."""
        ...


Matmul = Callable[[SharedLayer, Tensor, Tensor | None], Tensor]
"""Computes ``x W^T``, plus the bias if there is one, for a layer, ``x`` and the bias."""
_matmul_override: Matmul | None = None


class FrozenMatmul(torch.autograd.Function):
    """``x @ weight.T + bias``; dequantizes the weight in forward and again in backward, instead of holding it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: FrozenWeight, dtype: torch.dtype, bias: Tensor | None) -> Tensor:
        """Map ``x`` of shape ``(..., in)`` to ``(..., out)`` in its own dtype, computed in ``dtype``."""
        ctx.weight, ctx.dtype = weight, dtype
        return linear(x.to(dtype), weight.dequantize(dtype), bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of ``x``; weight and bias are frozen."""
        return (gradient.to(ctx.dtype) @ ctx.weight.dequantize(ctx.dtype)).to(gradient.dtype), None, None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias`` in the dtype of ``x`` and ``weight``."""
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


class FrozenLinear(nn.Linear):
    """``y = x W^T + b`` with a packed ``W`` that no method can write to.

    It is an ``nn.Linear``, so that `peft` accepts it, but ``weight`` is a read-only property that dequantizes on
    demand. The bias is a frozen parameter of shape ``(out,)``, added within the product. If a method trains the bias,
    it is added after the product, in the input's dtype.

    Args:
        frozen: packed weight of shape ``(out, in)``, shared by all views.
        bias: bias of shape ``(out,)``, or ``None``.
        dtype: dtype of the product.
        position: index of the layer in the order of the model's modules.

    ``fused_rows`` is the largest number of rows for which a product without gradients takes bitsandbytes' 4-bit kernel;
    0 unless the configuration asks for it.
    """

    def __init__(self, frozen: FrozenWeight, bias: nn.Parameter | None, dtype: torch.dtype, position: int) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = frozen.shape
        self.frozen, self.compute_dtype, self.position = frozen, dtype, position
        self.fused_rows = 0
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """A float32 copy, for methods that need the weight itself. Writing to the copy does not change the layer."""
        return self.frozen.dequantize(torch.float32).detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape ``(..., in)`` to ``(..., out)`` in the dtype of ``x``."""
        bias = self._parameters["bias"]
        if bias is not None and bias.requires_grad:
            return self._overridable_matmul(x, None) + bias.to(x.dtype)
        y = self._overridable_matmul(x, bias)
        # In a pack, y may be a view of several trials' outputs. Methods may add to it in place, which autograd forbids
        # for such views; without gradients it is their own rows that they write to.
        return y.clone() if torch.is_grad_enabled() and y._is_view() else y

    def product(self, x: Tensor) -> Tensor:
        """Return ``x W^T`` without the bias, in the dtype of ``x``."""
        return self._overridable_matmul(x, None)

    def matmul(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x W^T``, plus the bias if there is one, for this layer alone."""
        if self.fused_rows and not torch.is_grad_enabled() and (fused := self._fused(x)) is not None:
            kind = self.compute_dtype
            return fused.matmul(x.to(kind), None if bias is None else bias.to(kind)).to(x.dtype)
        y: Tensor = FrozenMatmul.apply(x, self.frozen, self.compute_dtype, bias)
        return y

    def _fused(self, x: Tensor) -> FourBitWeight | None:
        """Return the weight that is multiplied without unpacking it, if the input has few enough rows for that."""
        weight = getattr(self.frozen, "packed", None) if not isinstance(self.frozen, FourBitWeight) else self.frozen
        rows = x.numel() // self.in_features
        if not isinstance(weight, FourBitWeight) or rows > self.fused_rows or self.in_features % weight.blocksize:
            return None
        return weight

    def _overridable_matmul(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return self.matmul(x, bias) if _matmul_override is None else _matmul_override(self, x, bias)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, frozen={type(self.frozen).__name__}"


def current_matmul() -> Matmul | None:
    """Return the function that :func:`override_matmul` has set, if there is one."""
    return _matmul_override


@contextmanager
def override_matmul(matmul: Matmul) -> Iterator[None]:
    """Let every frozen layer inside call ``matmul(layer, x, bias)`` instead of its own product."""
    global _matmul_override
    before, _matmul_override = _matmul_override, matmul
    try:
        yield
    finally:
        _matmul_override = before


def compute_dtype(setting: str, device: torch.device) -> torch.dtype:
    """Return the dtype of frozen products.

    Args:
        setting: ``bfloat16``, ``float32``, or ``auto`` for bfloat16 where the hardware multiplies it fast.
        device: device that computes.
    """
    if setting != "auto":
        return torch.bfloat16 if setting == "bfloat16" else torch.float32
    if device.type == "cuda":
        # By default torch also counts GPUs that emulate bfloat16 (before Ampere), slower than they compute in float32.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
