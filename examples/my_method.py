"""A method of your own: a learned factor for every channel of what a block hands on, 1 at the start.

Name the file in a sweep's ``plugins`` and its stem in ``methods``, as examples/plugin.yaml does.
"""

from dataclasses import dataclass
from typing import Any

import torch
from optuna.distributions import FloatDistribution
from torch import nn

from methods import Attached, Category, Context, Hyperparameters, MethodSpec, attached, blocks, train_head
from search_spaces import SearchSpace, training


@dataclass(frozen=True, kw_only=True)
class MyParams(Hyperparameters):
    """``first`` is the share of blocks, counted from the input, that stay as they are."""

    first: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.first < 1, "first", "in 0..1, below 1")


class Scale(nn.Module):
    """Runs after a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(width))

    def forward(self, _: nn.Module, __: Any, output: Any) -> Any:
        """Multiplies the residual stream, of shape ``(batch, tokens, width)``."""
        stream, *rest = output if isinstance(output, tuple) else (output,)
        scaled = (stream.float() * self.factor).to(stream.dtype)
        return (scaled, *rest) if isinstance(output, tuple) else scaled


def attach(view: nn.Module, params: MyParams, context: Context) -> Attached:
    """Put a scale behind every block that takes part, and let the head train."""
    chosen, device = blocks(view, context.layers), next(view.parameters()).device
    for block in chosen[int(params.first * len(chosen)) :]:
        block.module.scale = Scale(view.config.get_text_config().hidden_size).to(device)
        block.module.register_forward_hook(block.module.scale)
    return attached(view, "my_method", params, context, active=train_head(view, context))


SPEC = MethodSpec(
    name="my_method", category=Category.ADDITIVE, reference="this file", params_type=MyParams, attach=attach
)
SPACE = SearchSpace(
    distributions={**training(1e-3, 1e-1), "first": FloatDistribution(0.0, 0.5)},
    default={"learning_rate": 5e-3, "batch_size": 16, "warmup": 0.06, "weight_decay": 0.0, "first": 0.0},
    sources={"learning_rate": "as IA3, which scales as well (arXiv:2205.05638)", "first": "none to half"},
)
