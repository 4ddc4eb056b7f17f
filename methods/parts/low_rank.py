"""Low-rank updates, shared by LoRA and its relatives: parameters, targets, and the learning rates of the two factors.

Each adds ``s B A`` to a frozen weight of shape ``(out, in)``; ``A`` has shape ``(rank, in)``, ``B`` shape
``(out, rank)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from methods.base import peft_adapter
from methods.base.architecture import Role, innermost, name_pattern, targets
from methods.base.spec import Attached, Context, Hyperparameters, MethodError, ParameterGroup
from methods.parts.lora_layer import FusedLoraLinear

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
        rank: number of columns of ``B`` and of rows of ``A``.
        alpha_ratio: ``alpha / rank``.
        dropout: dropout rate of the input of ``A``.
        rslora: whether ``alpha`` is divided by the root of the rank instead of the rank.
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
        self.require_in_range("rank", "alpha_ratio", "dropout", "lr_ratio")

    @property
    def alpha(self) -> float:
        """Numerator of the update's scale."""
        return self.alpha_ratio * self.rank

    @property
    def scale(self) -> float:
        """``s``, the factor of the update."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True, kw_only=True)
class TargetedParams(LowRankParams):
    """Parameters of a low-rank update of some layers.

    Args:
        targets: linear layers of every block that get an update; a key of ``TARGETS``.
    """

    targets: Targets = "all_linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.targets in TARGETS, "targets", f"one of {', '.join(TARGETS)}")


def attach(
    view: nn.Module, target_kind: str, method: str, params: LowRankParams, context: Context, **options: Any
) -> Attached:
    """Put a low-rank update beside every linear layer of a kind.

    Args:
        view: view of the backbone, changed in place.
        target_kind: kind of linear layers, a key of ``TARGETS``.
        method: name of the method.
        params: parameters of the update.
        context: the view's context.
        options: further arguments of `peft`'s ``LoraConfig``.

    Raises:
        MethodError: if the architecture has no such layer, or one is narrower than the rank.
    """
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        target_modules=target_pattern(view, target_kind, params.rank, "rank", context),
        lora_dropout=params.dropout,
        use_rslora=params.rslora,
        **options,
    )
    config._register_custom_module({nn.Linear: FusedLoraLinear})

    def groups(model: PeftModel) -> Sequence[ParameterGroup]:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        b_factors = tuple(p for name, p in named if "lora_B" in name)
        rest = tuple(p for name, p in named if "lora_B" not in name)
        return ParameterGroup(rest), ParameterGroup(b_factors, params.lr_ratio)

    attached = peft_adapter.attach(view, config, method, params, context, groups=groups, merges=True)
    for module in attached.module.modules():
        if isinstance(module, FusedLoraLinear):
            module.product_dtype = None if context.product_dtype == torch.float32 else context.product_dtype
    return attached


def target_pattern(view: nn.Module, target_kind: str, rank: int, field: str, context: Context) -> str:
    """Return the regular expression by which `peft` finds the targets.

    Raises:
        MethodError: if there is no target, or ``rank``, the value of ``field``, is above the rank of one of them.
    """
    names = targets(view, TARGETS[target_kind], context.layers)
    _require_possible_rank(view, names, rank, field)
    return name_pattern(names)


def updated_layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    """Yield every layer with an update, and its name in the bare model."""
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _require_possible_rank(view: nn.Module, names: Iterable[str], rank: int, field: str) -> None:
    for name in names:
        rows, columns = _shape(innermost(view.get_submodule(name)))
        if rank > min(rows, columns):
            message = f"{name} is {rows} x {columns} and has no more than {min(rows, columns)} to update"
            raise MethodError(f"{field} is {rank}; {message}")


def _shape(layer: nn.Module) -> tuple[int, int]:
    """Return ``(out, in)`` without unpacking a weight; GPT-2's Conv1D stores the transpose."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    columns, rows = layer.get_parameter("weight").shape
    return int(rows), int(columns)
