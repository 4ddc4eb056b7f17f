"""Low-rank updates of frozen weights: ``W + s B A`` with ``B = 0`` at the start (Hu et al., 2021, arXiv:2106.09685).

``s`` is ``alpha / rank``, or ``alpha / sqrt(rank)`` with rank stabilization (arXiv:2312.03732). ``B`` may learn faster
than ``A`` (LoRA+, arXiv:2402.12354). Other initial values of ``A`` and ``B`` are in ``parts/low_rank_init.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from methods.base.spec import Attached, Category, Context, MethodSpec
from methods.parts import low_rank, low_rank_init
from methods.parts.low_rank import TargetedParams

INITS = ("default", "pissa", "olora", "loftq")


@dataclass(frozen=True, kw_only=True)
class LoraParams(TargetedParams):
    """Parameters of LoRA.

    Args:
        init: initial values of ``A`` and ``B``: ``default``, random and zero; ``pissa``, the principal part of the
            weight (arXiv:2404.02948); ``olora``, the first part of its QR decomposition (arXiv:2406.01775); ``loftq``,
            the quantization error of the weight (arXiv:2310.08659), which needs a quantized backbone and its original
            checkpoint.
    """

    init: Literal["default", "pissa", "olora", "loftq"] = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.init in INITS, "init", f"one of {', '.join(INITS)}")


def attach(view: nn.Module, params: LoraParams, context: Context) -> Attached:
    """Put a low-rank update beside every target."""
    fresh = low_rank.attach(view, params.targets, "lora", params, context)
    if params.init == "default":
        return fresh
    if params.init == "loftq":
        return low_rank_init.init_from_quantization_error(fresh, params, context)
    return low_rank_init.init_from_weight(fresh, params.init, params, context)


SPEC = MethodSpec(
    name="lora",
    category=Category.REPARAMETERIZATION,
    reference="Hu et al. (2021), arXiv:2106.09685",
    params_type=LoraParams,
    attach=attach,
    supports_merge=True,
    peft=True,
    original_for={"init": frozenset({"loftq"})},
)
