"""Low-rank updates whose ranks move to the layers that need them (Zhang et al., 2023, arXiv:2303.10512).

``W + s P Lambda Q`` with a diagonal ``Lambda`` that is 0 at the start; a penalty keeps ``P`` and ``Q`` orthogonal. From
``tinit`` on, the least important entries of ``Lambda`` in the whole model are set to zero, their number growing along a
cubic curve, until the budget is reached; over the last ``tfinal`` steps the remaining entries train on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from peft import AdaLoraConfig, PeftModel
from torch import nn

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec
from methods.parts import adalora_budget
from methods.parts.low_rank import TARGETS, Targets, target_pattern


@dataclass(frozen=True, kw_only=True)
class AdaloraParams(Hyperparameters):
    """Parameters of AdaLoRA.

    Args:
        init_rank: rank of every layer at the start.
        target_ratio: average rank over layers at the end, over ``init_rank``.
        alpha_ratio: ``s``, which does not change with the rank in `peft`.
        targets: linear layers of every block that get an update; a key of ``TARGETS``.
        dropout: dropout rate of the input of ``Q``.
        tinit: fraction of all steps before ranks begin to fall.
        tfinal: fraction of all steps after the last fall.
        interval: fraction of all steps between two falls; one step at least.
        orthogonality: weight of the penalty, the mean of ``|P^T P - I|`` and ``|Q Q^T - I|`` over all layers.
    """

    init_rank: int = 12
    target_ratio: float = 0.67
    alpha_ratio: float = 2.0
    targets: Targets = "all_linear"
    dropout: float = 0.0
    tinit: float = 0.1
    tfinal: float = 0.5
    interval: float = 0.01
    orthogonality: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range(
            "init_rank", "target_ratio", "alpha_ratio", "dropout", "tinit", "interval", "orthogonality"
        )
        self.require(self.targets in TARGETS, "targets", f"one of {', '.join(TARGETS)}")
        self.require(0 <= self.tfinal < 1 - self.tinit, "tfinal", "at least 0 and below 1 - tinit")

    @property
    def target_rank(self) -> int:
        """Average rank of a layer at the end: at least 1, and below ``init_rank``."""
        return min(max(round(self.target_ratio * self.init_rank), 1), self.init_rank - 1)


def attach(view: nn.Module, params: AdaloraParams, context: Context) -> Attached:
    """Put an update with a budget beside every target.

    Raises:
        MethodError: if the architecture has no such layer, or one is narrower than the rank.
    """
    config = AdaLoraConfig(
        init_r=params.init_rank,
        target_r=params.target_rank,
        lora_alpha=params.alpha_ratio * params.init_rank,
        target_modules=target_pattern(view, params.targets, params.init_rank, "init_rank", context),
        lora_dropout=params.dropout,
        orth_reg_weight=params.orthogonality,
        total_step=1,  # set at the first step, before peft reads it
    )
    attached = peft_adapter.attach(view, config, "adalora", params, context, merges=True)
    model: PeftModel = attached.module
    return replace(
        attached,
        on_step=lambda step, total: adalora_budget.allocate(model, step, _schedule(params, total)),
        penalty=lambda: params.orthogonality * adalora_budget.skewness(model),
        state=lambda: adalora_budget.state(model),
        load_state=lambda tensors: adalora_budget.load_state(model, tensors),
        save=lambda folder: adalora_budget.save(folder, attached.save, model),
        load=lambda folder: adalora_budget.load(folder, model),
    )


def _schedule(params: AdaloraParams, total: int) -> adalora_budget.Schedule:
    tfinal = min(round(params.tfinal * total), max(total - 2, 0))  # importance is measured for one step at least
    return adalora_budget.Schedule(
        total_step=total,
        tinit=min(round(params.tinit * total), total - tfinal - 1),
        tfinal=tfinal,
        deltaT=max(round(params.interval * total), 1),
    )


SPEC = MethodSpec(
    name="adalora",
    category=Category.REPARAMETERIZATION,
    reference="Zhang et al. (2023), arXiv:2303.10512",
    params_type=AdaloraParams,
    attach=attach,
    supports_merge=True,
    peft=True,
)
