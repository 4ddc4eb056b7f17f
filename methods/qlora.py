"""LoRA beside every linear layer of a backbone in 4 bits (Dettmers et al., 2023, arXiv:2305.14314).

The backbone is quantized to NF4 or FP4, with double quantization as the configuration says. The optimizer keeps its
state in 8 bits, in pages that move to host memory when the GPU's runs short; without CUDA it is AdamW.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from methods.base.spec import Attached, Category, Context, MethodError, MethodSpec
from methods.parts import low_rank
from methods.parts.low_rank import LowRankParams


@dataclass(frozen=True, kw_only=True)
class QloraParams(LowRankParams):
    """Parameters of QLoRA: those of a low-rank update."""


def attach(view: nn.Module, params: QloraParams, context: Context) -> Attached:
    """Put a low-rank update beside every linear layer.

    Raises:
        MethodError: if the backbone is not in 4 bits.
    """
    if context.quantization not in ("nf4", "fp4"):
        raise MethodError("qlora needs a backbone in 4 bit; write backbone.quantization: nf4")
    fresh = low_rank.attach(view, "all_linear", "qlora", params, context)
    return replace(fresh, optimizer="paged_adamw_8bit")


SPEC = MethodSpec(
    name="qlora",
    category=Category.REPARAMETERIZATION,
    reference="Dettmers et al. (2023), arXiv:2305.14314",
    params_type=QloraParams,
    attach=attach,
    supports_merge=True,
    peft=True,
)
