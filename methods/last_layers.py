"""Training of the last blocks and the head, in float32 copies; everything below stays frozen.

It is cheap, since no gradient flows through the frozen blocks, and weak where a task needs other low-level features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from methods.base.architecture import blocks
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodSpec
from methods.base.trainable import attached, compute_in_float32, train_copies, train_head


@dataclass(frozen=True, kw_only=True)
class LastLayersParams(Hyperparameters):
    """Parameters of freezing the lower blocks.

    Args:
        fraction: fraction of the blocks that train, in 0..1, counted from the output and rounded up.
    """

    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    fraction: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("fraction")


def attach(view: nn.Module, params: LastLayersParams, context: Context) -> Attached:
    """Replace the last blocks and a decoder's final norm by trainable copies, and let the head train.

    Raises:
        MethodError: if the original checkpoint is not at hand.
    """
    view_blocks = blocks(view)
    last_blocks = view_blocks[-math.ceil(params.fraction * len(view_blocks)) :]
    names = [block.name for block in last_blocks] + _final_norms(view, view_blocks[-1].name)
    modules = [view.get_submodule(name) for name in names]
    train_copies(view, modules, context)
    for module in modules:
        compute_in_float32(module)
    heads = train_head(view, context)
    active = [part for module in [*modules, *heads] for part in module.modules()]
    return attached(view, "last_layers", params, context, active=active, merge=lambda: view)


def _final_norms(view: nn.Module, last_block: str) -> list[str]:
    """Return the names of the norms that the model defines right after its list of blocks, as decoders do."""
    holder, _, blocks_name = last_block.rpartition(".")[0].rpartition(".")
    names = [name for name, _ in view.get_submodule(holder).named_children()]
    after = names[names.index(blocks_name) + 1 :]
    return [f"{holder}.{name}" if holder else name for name in after if "norm" in name.lower() or name == "ln_f"]


SPEC = MethodSpec(
    name="last_layers",
    category=Category.SELECTIVE,
    reference="Lee, Tang & Lin (2019), arXiv:1911.03090",
    params_type=LastLayersParams,
    attach=attach,
    supports_merge=True,
    needs_original=True,
)
