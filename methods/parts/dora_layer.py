"""DoRA's pass over a frozen layer, without building the updated weight.

`peft` builds ``W + s B A`` and its norm in every pass, and keeps an unpacked ``W`` for the backward pass where there is
dropout. The rows' lengths need neither: ``|w + s b A|^2 = |w|^2 + 2 s b . (A w) + s^2 b (A A^T) b``, of which the first
term never changes and all are the same until the next optimizer step.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

TINY = 1e-12  # below the square of any length that float32 tells from 0 beside these terms


class FrozenDora(DoraLinearVariant):
    """What `peft` asks of one layer in place of its own; merging is `peft`'s."""

    def __init__(self) -> None:
        self._squares: Tensor | None = None
        self._lengths: tuple[tuple[int, int], Tensor] | None = None

    def forward(self, module: Linear, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """What the layer gives for ``x`` of shape ``(..., in)``; ``result`` is what its frozen part gives."""
        base, dropout = module.get_base_layer(), module.lora_dropout[active_adapter]
        plain = result
        if module.training and not isinstance(dropout, nn.Identity):
            x = dropout(x)
            plain = base(x)
        if base.bias is not None:
            plain = plain - base.bias.to(plain.dtype)
        ratio = module.lora_magnitude_vector[active_adapter].weight / self._row_lengths(module, active_adapter)
        update = module.lora_B[active_adapter](module.lora_A[active_adapter](x)) * module.scaling[active_adapter]
        changed: Tensor = result + (ratio - 1) * plain + ratio * update
        return changed

    @torch.no_grad()
    def _row_lengths(self, module: Linear, adapter: str) -> Tensor:
        """Of the updated weight, shape ``(out,)``; kept between passes that do not train."""
        a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        versions = a._version, b._version
        if not module.training and self._lengths and self._lengths[0] == versions:
            return self._lengths[1]
        lengths = self._measured(module.get_base_layer().weight, a, module.scaling[adapter] * b)
        self._lengths = None if module.training else (versions, lengths)
        return lengths

    def _measured(self, weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
        weight = weight.to(a.dtype)
        if self._squares is None:
            self._squares = weight.square().sum(dim=1)
        crossed = 2 * (weight @ a.T * b).sum(dim=1)
        own = (b @ (a @ a.T) * b).sum(dim=1)
        return (self._squares + crossed + own).clamp_min(TINY).sqrt()
