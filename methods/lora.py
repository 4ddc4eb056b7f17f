"""Low-rank updates of frozen weights: ``W + s B A`` with ``B = 0`` at the start (Hu et al., 2021, arXiv:2106.09685).

``s`` is ``alpha / rank``, or ``alpha / sqrt(rank)`` with rank stabilization (arXiv:2312.03732). ``B`` may learn faster
than ``A`` (LoRA+, arXiv:2402.12354).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peft import LoraConfig, PeftModel
from torch import nn

from methods import _peft
from methods._architecture import Role, pattern, targets
from methods._base import Attached, Category, Context, Hyperparameters, MethodSpec, ParameterGroup

ATTENTION: tuple[Role, ...] = ("query", "key", "value", "fused", "attention_output")
TARGETS: dict[str, tuple[Role, ...]] = {
    "attention_qv": ("query", "value", "fused"),
    "attention": ATTENTION,
    "feed_forward": ("feed_forward",),
    "all_linear": (*ATTENTION, "attention_other", "feed_forward"),
}


@dataclass(frozen=True, kw_only=True)
class LoraParams(Hyperparameters):
    """Parameters of LoRA.

    Args:
        rank: columns of ``B`` and rows of ``A``.
        alpha_ratio: ``alpha / rank``.
        targets: which linear layers of every block.
        dropout: of what ``A`` reads.
        rslora: divide ``alpha`` by the root of the rank instead of the rank.
        lr_ratio: learning rate of ``B`` over that of ``A``.
    """

    learning_rate: float = 2e-4
    rank: int = 8
    alpha_ratio: float = 2.0
    targets: Literal["attention_qv", "attention", "feed_forward", "all_linear"] = "all_linear"
    dropout: float = 0.0
    rslora: bool = False
    lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.rank >= 1, "rank", "at least 1")
        self.require(self.alpha_ratio > 0, "alpha_ratio", "above 0")
        self.require(self.targets in TARGETS, "targets", f"one of {', '.join(TARGETS)}")
        self.require(0 <= self.dropout < 1, "dropout", "in 0..1, below 1")
        self.require(self.lr_ratio > 0, "lr_ratio", "above 0")


def attach(view: nn.Module, params: LoraParams, context: Context) -> Attached:
    """Put a low-rank update beside every target."""
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha_ratio * params.rank,
        target_modules=pattern(targets(view, TARGETS[params.targets])),
        lora_dropout=params.dropout,
        use_rslora=params.rslora,
    )

    def groups(model: PeftModel) -> Sequence[ParameterGroup]:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        fast = tuple(p for name, p in named if "lora_B" in name)
        rest = tuple(p for name, p in named if "lora_B" not in name)
        return ParameterGroup(rest), ParameterGroup(fast, params.lr_ratio)

    return _peft.attached(view, config, "lora", params, context, groups=groups, merges=True)


SPEC = MethodSpec(
    name="lora",
    category=Category.REPARAMETERIZATION,
    reference="Hu et al. (2021), arXiv:2106.09685",
    params_type=LoraParams,
    attach=attach,
    supports_merge=True,
    peft=True,
)
