"""LoRA's and DoRA's forward pass over a frozen layer, with multiplication and addition of the update fused.

`peft` computes ``B A x``, scales it by ``s`` and adds it to the frozen layer's output, each in a pass over the whole
activation, and again over its gradient. On a CPU these passes cost more than the two low-rank products.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from methods.parts.dora_layer import DoraScales, FrozenDora, dora_scales


class FusedLoraLinear(Linear):
    """`peft`'s LoRA layer with a fused forward pass; with :class:`FrozenDora` as its variant, DoRA's.

    ``product_dtype`` is the dtype of the low-rank products and of the sum, bfloat16 for instance; without it they are
    computed in the factors' dtype.
    """

    product_dtype: torch.dtype | None = None

    @property
    def adds_bias(self) -> bool:
        """Whether the layer takes the frozen product without its bias, which it adds itself."""
        return self._dora() is not None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map shape ``(..., in)`` to ``(..., out)``, in the dtype of the frozen layer's output."""
        dora = self._dora()
        if self.merged or self.disable_adapters or kwargs or (self.lora_variant and not dora):
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        frozen_output: Tensor = self.base_layer.product(x) if dora else self.base_layer(x, *args)
        rows = frozen_output.flatten(0, -2)
        for name in filter(self.lora_A.__contains__, self.active_adapters):
            a, b = self.lora_A[name].weight, self.lora_B[name].weight
            dtype = self.product_dtype or a.dtype
            low_rank = self.lora_dropout[name](x.to(dtype)).flatten(0, -2) @ a.to(dtype).T
            rows = torch.addmm(rows.to(dtype), low_rank, b.to(dtype).T, alpha=self.scaling[name])
            if dora:
                rows = _scaled(rows, dora.ratio(self, name), self.base_layer.bias)
        return rows.view(frozen_output.shape).to(frozen_output.dtype)

    def stack_key(self) -> Hashable | None:
        """Return the frozen weight and the dtypes; no dropout may be active, and the factors alone may train."""
        base, (name, *others) = self.base_layer, self.active_adapters or [""]
        frozen = getattr(base, "frozen", None)
        if frozen is None or others or name not in self.lora_A or self.merged or self.disable_adapters:
            return None
        dropout, bias = self.lora_dropout[name], base.bias
        if self.lora_B[name].bias is not None or (bias is not None and bias.requires_grad):
            return None
        if not isinstance(dropout, nn.Identity) or (self.lora_variant and not self._dora()):
            return None
        return id(frozen), id(bias), self.product_dtype, self.lora_A[name].weight.dtype

    def stack_parameters(self) -> tuple[nn.Parameter | None, ...]:
        """Return ``A`` of shape ``(rank, in)``, ``B`` of shape ``(out, rank)``, and DoRA's magnitude, ``(out,)``."""
        (name,) = self.active_adapters
        magnitude = self.lora_magnitude_vector[name].weight if self._dora() else None
        return self.lora_A[name].weight, self.lora_B[name].weight, magnitude

    @classmethod
    def prepare(cls, groups: Sequence[Sequence[FusedLoraLinear]]) -> list[DoraScales | None]:
        """Return what DoRA's outputs are multiplied with, for each group of layers that has any with DoRA."""
        return dora_scales([[(layer, *layer.active_adapters, layer._dora()) for layer in layers] for layers in groups])

    def stack_constant(self) -> float:
        """Return the scale of the update."""
        (name,) = self.active_adapters
        return float(self.scaling[name])

    @classmethod
    def stacked_forward(
        cls,
        layers: Sequence[FusedLoraLinear],
        x: Tensor,
        stacks: Sequence[Tensor],
        constants: Tensor,
        prepared: DoraScales | None,
    ) -> Tensor:
        """Return the outputs of several layers over the same frozen one, with one product for each factor."""
        base = layers[0].base_layer
        a, b, *magnitudes = stacks
        frozen_output: Tensor = base.product(x) if magnitudes else base(x)
        dtype = layers[0].product_dtype or a.dtype
        inputs = x.to(dtype).reshape(len(layers), -1, x.shape[-1])
        low_rank = (inputs @ a.to(dtype).mT) * constants.to(dtype)
        outputs = frozen_output.to(dtype).view(len(layers), -1, frozen_output.shape[-1])
        rows = torch.baddbmm(outputs, low_rank, b.to(dtype).mT)
        if prepared:
            rows = _scaled(rows, prepared.ratio(*magnitudes).unsqueeze(1), base.bias)
        return rows.view(frozen_output.shape).to(frozen_output.dtype)

    def _dora(self) -> FrozenDora | None:
        """Return DoRA's variant of the layer; ``None`` if there is none, or if `peft`'s order of steps is needed."""
        names = self.active_adapters
        variant = self.lora_variant.get(names[0]) if len(names) == 1 and self.lora_variant else None
        if not isinstance(variant, FrozenDora) or not hasattr(self.base_layer, "product"):
            return None
        drops = self.training and not isinstance(self.lora_dropout[names[0]], nn.Identity)
        return None if drops else variant


def _scaled(rows: Tensor, ratio: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``rows * ratio + bias`` in the dtype of the ratio, which differs from one too little for bfloat16."""
    return rows * ratio if bias is None else torch.addcmul(bias.to(ratio.dtype), rows.to(ratio.dtype), ratio)
