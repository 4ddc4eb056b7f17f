"""Full fine-tuning: every weight trains, in a float32 copy; the ceiling that other methods are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from methods.base.architecture import blocks
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec, ParameterGroup
from methods.base.trainable import attached, train_copies
from methods.parts.mean_pooling import feed_mean, last_linear


@dataclass(frozen=True, kw_only=True)
class FullParams(Hyperparameters):
    """Parameters of full fine-tuning.

    Args:
        layer_decay: learning rate of each block over that of the next one, and of the embeddings over that of the
            first block (discriminative fine-tuning, Howard & Ruder, 2018, arXiv:1801.06146); 1 for a single rate.
        pooling: ``head`` for the features of the model's own head; ``mean`` for the mean of the last hidden states over
            the tokens of a row, where a row has one label.
    """

    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    pooling: Literal["head", "mean"] = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("layer_decay")
        self.require(self.pooling in ("head", "mean"), "pooling", "head or mean")


def attach(view: nn.Module, params: FullParams, context: Context) -> Attached:
    """Replace all shared parameters by trainable copies of the original checkpoint.

    Raises:
        MethodError: if the original checkpoint is not at hand, or the head cannot read the mean.
    """
    is_mean = params.pooling == "mean"
    last = last_linear(view, context) if is_mean else None
    train_copies(view, [view], context)
    if last is not None:
        for name in context.head:
            view.get_submodule(name).requires_grad_(False)
        last.requires_grad_(True)
        feed_mean(view, last, nn.Identity())
    groups = _groups(view, params.layer_decay)
    merge = None if is_mean else lambda: view
    return attached(view, "full", params, context, active=view.modules(), groups=groups, merge=merge)


def _groups(view: nn.Module, decay: float) -> tuple[ParameterGroup, ...]:
    """Group parameters by depth: greatest for those that the model defines before its blocks, 0 for those after."""
    view_blocks = blocks(view)
    depths = {p: len(view_blocks) - i for i, block in enumerate(view_blocks) for p in block.module.parameters()}
    by_depth: dict[int, list[nn.Parameter]] = {}
    depth_outside = len(view_blocks) + 1
    for parameter in (p for p in view.parameters() if p.requires_grad):
        if parameter in depths:
            depth_outside = 0
        by_depth.setdefault(depths.get(parameter, depth_outside), []).append(parameter)
    return tuple(ParameterGroup(tuple(parameters), decay**depth) for depth, parameters in sorted(by_depth.items()))


SPEC = MethodSpec(
    name="full",
    category=Category.FULL,
    reference="Howard & Ruder (2018), arXiv:1801.06146; Devlin et al. (2019), arXiv:1810.04805",
    params_type=FullParams,
    attach=attach,
    supports_merge=True,
    needs_original=True,
)
