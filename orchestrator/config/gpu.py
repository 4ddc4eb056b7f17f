"""How a lane computes on a GPU."""

from __future__ import annotations

from typing import Literal

from orchestrator.common.section import Section


class GpuSettings(Section):
    """How a lane computes on a GPU; nothing of it changes a lane on a processor."""

    trainable_products: Literal["float32", "tf32", "bfloat16"] = "float32"
    """The precision in which adapters and heads are multiplied. tf32 rounds the factors of float32 products to 10 bits;
    bfloat16 also multiplies LoRA and adapters in bfloat16. Parameters, gradients and updates stay float32."""
    keep_unpacked: Literal["nothing", "scales", "weights"] = "nothing"
    """What the GPU keeps of a quantized backbone beside its packed weights, to unpack less in every pass: the scales of
    4-bit weights (an eighth of the packed bytes), or whole weights where half of the free memory holds them, and scales
    where it does not."""
    four_bit_generation: bool = False
    """Whether text is generated with a kernel that multiplies 4-bit weights without unpacking them."""
