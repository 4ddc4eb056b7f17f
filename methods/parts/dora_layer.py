"""DoRA's forward pass over a frozen layer, without building the updated weight.

`peft` builds ``W + s B A`` and its row norms in every pass, and with dropout keeps an unpacked ``W`` for the backward
pass. The norms need neither, since for each row ``|w + s b A|^2 = |w|^2 + 2 s b . (A w) + s^2 b (A A^T) b``. The first
term never changes, and the others change with an optimizer step alone.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

MIN_SQUARED_NORM = 1e-12  # keeps the root's argument positive where rounding makes a zero row's sum negative


class FrozenDora(DoraLinearVariant):
    """DoRA's forward pass of one layer, in place of `peft`'s; `peft` merges."""

    def __init__(self) -> None:
        self._weight_squares: Tensor | None = None
        self._cached_norms: tuple[tuple[int, int], Tensor] | None = None

    def forward(self, module: Linear, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Return the layer's output for ``x`` of shape ``(..., in)``; ``result`` is its frozen part's output.

        With an active dropout the update alone sees dropped inputs at their own scale, so the frozen part is multiplied
        a second time, as `peft` does.
        """
        base, dropout = module.get_base_layer(), module.lora_dropout[active_adapter]
        frozen_output = result
        if module.training and not isinstance(dropout, nn.Identity):
            x = dropout(x)
            frozen_output = base(x)
        if base.bias is not None:
            frozen_output = frozen_output - base.bias.to(frozen_output.dtype)
        ratio = self.ratio(module, active_adapter)
        update = module.lora_B[active_adapter](module.lora_A[active_adapter](x)) * module.scaling[active_adapter]
        output: Tensor = result + (ratio - 1) * frozen_output + ratio * update
        return output

    def ratio(self, module: Linear, adapter: str) -> Tensor:
        """Return ``m / |W + s B A|``, shape ``(out,)``, by which each output of ``W + s B A`` is multiplied."""
        magnitude: Tensor = module.lora_magnitude_vector[adapter].weight
        return magnitude / self._row_norms(module, adapter)

    @torch.no_grad()
    def _row_norms(self, module: Linear, adapter: str) -> Tensor:
        """Return the row norms of the updated weight, shape ``(out,)``; cached in evaluation mode.

        In training mode they are computed in every pass: an optimizer that writes to ``parameter.data`` leaves the
        version counters unchanged.
        """
        a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        versions = a._version, b._version
        if not module.training and self._cached_norms and self._cached_norms[0] == versions:
            return self._cached_norms[1]
        norms = self._compute_row_norms(module.get_base_layer().weight, a, b, module.scaling[adapter])
        self._cached_norms = None if module.training else (versions, norms)
        return norms

    def _compute_row_norms(self, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        weight = weight.to(a.dtype)
        if self._weight_squares is None:
            self._weight_squares = weight.square().sum(dim=1)
        by_b = torch.addmm(weight @ a.T, b, a @ a.T, beta=2 * scale, alpha=scale * scale)
        squares = self._weight_squares + (by_b * b).sum(dim=1)
        return squares.clamp_min_(MIN_SQUARED_NORM).sqrt_()
