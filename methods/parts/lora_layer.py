"""LoRA's pass over a frozen layer, with its update added as it is multiplied.

`peft` writes ``s B A x`` out, multiplies it by ``s`` and adds it to the frozen part: passes over whole activations, and
again over their gradients, that cost a processor more than the two narrow products.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor


class AddedLinear(Linear):
    """`peft`'s own layer but for the pass."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Shape ``(..., in)`` to ``(..., out)``, in the dtype that the frozen part gives."""
        if self.merged or self.disable_adapters or self.lora_variant or kwargs:
            changed: Tensor = super().forward(x, *args, **kwargs)
            return changed
        plain: Tensor = self.base_layer(x, *args)
        rows = plain.flatten(0, -2)
        for name in filter(self.lora_A.__contains__, self.active_adapters):
            a, b = self.lora_A[name].weight, self.lora_B[name].weight
            narrow = self.lora_dropout[name](x.to(a.dtype)).flatten(0, -2) @ a.T
            rows = torch.addmm(rows.to(a.dtype), narrow, b.T, alpha=self.scaling[name])
        return rows.view(plain.shape).to(plain.dtype)
