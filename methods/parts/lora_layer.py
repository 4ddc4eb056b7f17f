"""LoRA's forward pass over a frozen layer, with multiplication and addition of the update fused.

`peft` computes ``B A x``, scales it by ``s`` and adds it to the frozen layer's output, each in a pass over the whole
activation, and again over its gradient. On a CPU these passes cost more than the two low-rank products.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor


class FusedLoraLinear(Linear):
    """`peft`'s LoRA layer with a fused forward pass.

    ``product_dtype`` is the dtype of the low-rank products and of the sum, bfloat16 for instance; without it they are
    computed in the factors' dtype.
    """

    product_dtype: torch.dtype | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map shape ``(..., in)`` to ``(..., out)``, in the dtype of the frozen layer's output."""
        if self.merged or self.disable_adapters or self.lora_variant or kwargs:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        frozen_output: Tensor = self.base_layer(x, *args)
        rows = frozen_output.flatten(0, -2)
        for name in filter(self.lora_A.__contains__, self.active_adapters):
            a, b = self.lora_A[name].weight, self.lora_B[name].weight
            dtype = self.product_dtype or a.dtype
            low_rank = self.lora_dropout[name](x.to(dtype)).flatten(0, -2) @ a.to(dtype).T
            rows = torch.addmm(rows.to(dtype), low_rank, b.to(dtype).T, alpha=self.scaling[name])
        return rows.view(frozen_output.shape).to(frozen_output.dtype)
