"""What the relatives of LoRA have in common: their parameters, where they sit, and how their two factors learn.

Each adds ``s B A`` to a frozen weight of shape ``(out, in)``; ``A`` is of shape ``(rank, in)``, ``B`` of shape
``(out, rank)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from methods.base import peft_adapter
from methods.base.architecture import Role, innermost, pattern, targets
from methods.base.spec import Attached, Context, Hyperparameters, MethodError, ParameterGroup
from methods.parts.lora_layer import AddedLinear

ATTENTION: tuple[Role, ...] = ("query", "key", "value", "fused", "attention_output")
TARGETS: dict[str, tuple[Role, ...]] = {
    "attention_qv": ("query", "value", "fused"),
    "attention": ATTENTION,
    "feed_forward": ("feed_forward",),
    "all_linear": (*ATTENTION, "attention_other", "feed_forward"),
}
Targets = Literal["attention_qv", "attention", "feed_forward", "all_linear"]


@dataclass(frozen=True, kw_only=True)
class LowRankParams(Hyperparameters):
    """Parameters of a low-rank update.

    Args:
        rank: columns of ``B`` and rows of ``A``.
        alpha_ratio: ``alpha / rank``.
        dropout: of what ``A`` reads.
        rslora: divide ``alpha`` by the root of the rank instead of the rank.
        lr_ratio: learning rate of ``B`` over that of ``A``.
    """

    learning_rate: float = 2e-4
    rank: int = 8
    alpha_ratio: float = 2.0
    dropout: float = 0.0
    rslora: bool = False
    lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.rank >= 1, "rank", "at least 1")
        self.require(self.alpha_ratio > 0, "alpha_ratio", "above 0")
        self.require(0 <= self.dropout < 1, "dropout", "in 0..1, below 1")
        self.require(self.lr_ratio > 0, "lr_ratio", "above 0")

    @property
    def alpha(self) -> float:
        """The numerator of the update's scale."""
        return self.alpha_ratio * self.rank

    @property
    def scale(self) -> float:
        """``s``, what the update is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True, kw_only=True)
class TargetedParams(LowRankParams):
    """Parameters of a low-rank update of some layers.

    Args:
        targets: which linear layers of every block.
    """

    targets: Targets = "all_linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.targets in TARGETS, "targets", f"one of {', '.join(TARGETS)}")


def attached(
    view: nn.Module, where: str, method: str, params: LowRankParams, context: Context, **config: Any
) -> Attached:
    """Put a low-rank update beside every linear layer of a kind.

    Args:
        view: changed in place.
        where: a key of ``TARGETS``.
        method: its name.
        params: of the update.
        context: of the view.
        config: what else `peft`'s ``LoraConfig`` takes.

    Raises:
        MethodError: if the architecture has no such layer, or one is narrower than the rank.
    """
    low_rank = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        target_modules=target_pattern(view, where, params.rank, "rank", context),
        lora_dropout=params.dropout,
        use_rslora=params.rslora,
        **config,
    )
    low_rank._register_custom_module({nn.Linear: AddedLinear})

    def groups(model: PeftModel) -> Sequence[ParameterGroup]:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        fast = tuple(p for name, p in named if "lora_B" in name)
        rest = tuple(p for name, p in named if "lora_B" not in name)
        return ParameterGroup(rest), ParameterGroup(fast, params.lr_ratio)

    return peft_adapter.attached(view, low_rank, method, params, context, groups=groups, merges=True)


def target_pattern(view: nn.Module, where: str, rank: int, field: str, context: Context) -> str:
    """The targets' names as `peft` reads them.

    Raises:
        MethodError: if there is none, or ``rank``, the value of ``field``, is more than one of them can hold.
    """
    names = targets(view, TARGETS[where], context.layers)
    _require_room(view, names, rank, field)
    return pattern(names)


def updated_layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    """Every layer with an update beside it, by the name that it has in the bare model."""
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _require_room(view: nn.Module, names: Iterable[str], rank: int, field: str) -> None:
    for name in names:
        rows, columns = _shape(innermost(view.get_submodule(name)))
        if rank > min(rows, columns):
            message = f"{name} is {rows} x {columns} and has no more than {min(rows, columns)} to update"
            raise MethodError(f"{field} is {rank}; {message}")


def _shape(layer: nn.Module) -> tuple[int, int]:
    """``(out, in)``, without unpacking a weight; GPT-2's own kind of layer keeps its transpose."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    columns, rows = layer.get_parameter("weight").shape
    return int(rows), int(columns)
