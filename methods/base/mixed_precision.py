"""A linear layer that trains in mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixedLinear(nn.Linear):
    """Float32 weights, multiplied in a narrower dtype (Micikevicius et al., 2018, arXiv:1710.03740).

    Gradients are float32 again. Bfloat16 has float32's range, so that no loss needs to be scaled.

    Args:
        in_features: as in ``nn.Linear``.
        out_features: as in ``nn.Linear``.
        compute_dtype: what the product is computed in.

    The tensors are on the meta device, to be replaced, and there is no bias yet.
    """

    def __init__(self, in_features: int, out_features: int, compute_dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias=False, device="meta")
        self.compute_dtype = compute_dtype

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., in)`` to ``(..., out)``, in the dtype of ``x``."""
        if self.compute_dtype == x.dtype:
            return super().forward(x)
        y = F.linear(x.to(self.compute_dtype), self.weight.to(self.compute_dtype)).to(x.dtype)
        return y if self.bias is None else y + self.bias
