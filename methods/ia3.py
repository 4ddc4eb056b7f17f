"""One factor per channel of keys, values and the feed-forward, 1 at the start (Liu et al., 2022, arXiv:2205.05638)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peft import IA3Config
from torch import nn

from methods.base import peft_adapter
from methods.base.architecture import blocks, name_pattern, targets
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec

TARGETS = ("attention", "feed_forward", "attention_feed_forward")


@dataclass(frozen=True, kw_only=True)
class IA3Params(Hyperparameters):
    """Parameters of IA3.

    Args:
        targets: activations that are scaled: ``attention``, keys and values; ``feed_forward``, the input of the
            feed-forward's last layer; or ``attention_feed_forward``, both, as in the paper.
    """

    learning_rate: float = 3e-3
    targets: Literal["attention", "feed_forward", "attention_feed_forward"] = "attention_feed_forward"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.targets in TARGETS, "targets", f"one of {', '.join(TARGETS)}")


def attach(view: nn.Module, params: IA3Params, context: Context) -> Attached:
    """Put the factors at every target.

    Raises:
        MethodError: if the architecture has no such layers.
    """
    scaled_in = [name for block in blocks(view, context.layers) for name in block.feed_forward_out]
    scaled_out = targets(view, ("key", "value", "fused"), context.layers) if params.targets != "feed_forward" else []
    if params.targets == "attention":
        scaled_in = []
    elif not scaled_in:
        raise MethodError(f"{type(view).__name__} has no feed-forward of linear layers")
    config = IA3Config(
        target_modules=name_pattern([*scaled_out, *scaled_in]),
        feedforward_modules=name_pattern(scaled_in),
    )
    return peft_adapter.attach(view, config, "ia3", params, context, merges=True)


SPEC = MethodSpec(
    name="ia3",
    category=Category.ADDITIVE,
    reference="Liu et al. (2022), arXiv:2205.05638",
    params_type=IA3Params,
    attach=attach,
    supports_merge=True,
    peft=True,
)
