"""A linear layer with float32 weights that multiplies in a narrower dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixedLinear(nn.Linear):
    """A linear layer that trains in mixed precision (Micikevicius et al., 2018, arXiv:1710.03740).

    Weights and gradients are float32; the product is computed in a narrower dtype. Bfloat16 has float32's range, so
    that the loss needs no scaling. The weight starts on the meta device and without a bias; the caller replaces both.

    Args:
        in_features: size of each input row.
        out_features: size of each output row.
        compute_dtype: dtype of the matrix product.
    """

    def __init__(self, in_features: int, out_features: int, compute_dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias=False, device="meta")
        self.compute_dtype = compute_dtype

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(..., in)`` to ``(..., out)``, in the dtype of ``x``."""
        if self.compute_dtype == x.dtype:
            return super().forward(x)
        y = F.linear(x.to(self.compute_dtype), self.weight.to(self.compute_dtype)).to(x.dtype)
        return y if self.bias is None else y + self.bias
