"""Every weight trains, on a float32 copy of its own: the ceiling that other methods are compared with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods.base.architecture import blocks
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec, ParameterGroup
from methods.base.trainable import attached, train_copies


@dataclass(frozen=True, kw_only=True)
class FullParams(Hyperparameters):
    """Parameters of full fine-tuning.

    Args:
        layer_decay: the rate of each block is this times the next one's, and the embeddings' this times the first
            block's (discriminative fine-tuning, Howard & Ruder, 2018, arXiv:1801.06146); 1 for one rate.
    """

    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.layer_decay <= 1, "layer_decay", "above 0 and at most 1")


def attach(view: nn.Module, params: FullParams, context: Context) -> Attached:
    """Replace everything that is shared by trainable copies from the original checkpoint."""
    train_copies(view, [view], context)
    groups = _groups(view, params.layer_decay)
    return attached(view, "full", params, context, active=view.modules(), groups=groups, merge=lambda: view)


def _groups(view: nn.Module, decay: float) -> tuple[ParameterGroup, ...]:
    """Parameters by depth: what the model defines before its blocks lies deepest, what it defines after them at 0."""
    found = blocks(view)
    depth_in = {p: len(found) - i for i, block in enumerate(found) for p in block.module.parameters()}
    by_depth: dict[int, list[nn.Parameter]] = {}
    outside = len(found) + 1
    for parameter in view.parameters():
        if parameter in depth_in:
            outside = 0
        by_depth.setdefault(depth_in.get(parameter, outside), []).append(parameter)
    return tuple(ParameterGroup(tuple(some), decay**depth) for depth, some in sorted(by_depth.items()))


SPEC = MethodSpec(
    name="full",
    category=Category.FULL,
    reference="Howard & Ruder (2018), arXiv:1801.06146; Devlin et al. (2019), arXiv:1810.04805",
    params_type=FullParams,
    attach=attach,
    supports_merge=True,
    needs_original=True,
)
