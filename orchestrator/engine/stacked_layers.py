"""Layers of several trials whose small products are computed together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from methods.base.stackable import Stackable
from orchestrator.engine.parameter_stack import ParameterStack


@dataclass
class StackedLayers:
    """Layers that are stacked.

    Args:
        layers: the layers, of one key.
        stacks: their stacked parameters.
        constants: constant of each layer, shape ``(layers, 1, 1)``.
        prepared: what the layers have computed before the present pass, together with those of other sites.
    """

    layers: Sequence[Stackable]
    stacks: Sequence[ParameterStack]
    constants: Tensor
    prepared: Any = None

    def __call__(self, x: Tensor) -> Any:
        """Return the outputs of all layers, one below the other."""
        tensors = [stack.tensor for stack in self.stacks]
        return type(self.layers[0]).stacked_forward(self.layers, x, tensors, self.constants, self.prepared)


def stack_layers(layers: Sequence[Stackable]) -> StackedLayers:
    """Return several layers of one key as one."""
    parameters = zip(*(layer.stack_parameters() for layer in layers), strict=True)
    stacks = [ParameterStack(alike) for alike in parameters if any(p is not None for p in alike)]
    constants = stacks[0].tensor.new_tensor([layer.stack_constant() for layer in layers]).view(-1, 1, 1)
    return StackedLayers(layers, stacks, constants)


def prepare_stacked_layers(stacked: Sequence[StackedLayers]) -> None:
    """Let stacked layers of all sites compute together what they need before a pass."""
    by_type: dict[type[Stackable], list[StackedLayers]] = defaultdict(list)
    for one in stacked:
        by_type[type(one.layers[0])].append(one)
    for layer_type, members in by_type.items():
        for one, prepared in zip(members, layer_type.prepare([one.layers for one in members]), strict=True):
            one.prepared = prepared
