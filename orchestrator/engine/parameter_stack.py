"""Copies of several trials' parameters in one tensor each, so that one product serves all of these trials.

Trials keep parameters of their own, which optimizers, checkpoints and methods use as always. Before a joint pass their
values are copied into the stacks, and after the backward pass their gradients out of them, all in a few calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ParameterStack:
    """One parameter of each of several layers, stacked along a new first dimension and padded with zeros.

    Args:
        parameters: one parameter per layer, of one dtype and number of dimensions; ``None`` for a layer without it, at
            which the stack is zero.

    Attributes:
        parameters: the parameters that there are.
        tensor: leaf tensor of shape ``(layers, ...)`` that passes read.
    """

    def __init__(self, parameters: Sequence[nn.Parameter | None]) -> None:
        self._by_layer = {k: p for k, p in enumerate(parameters) if p is not None}
        self.parameters = list(self._by_layer.values())
        sizes = [max(lengths) for lengths in zip(*(p.shape for p in self.parameters), strict=True)]
        self.tensor = self.parameters[0].new_zeros(len(parameters), *sizes, requires_grad=True)

    def parts(self, tensor: Tensor) -> list[Tensor]:
        """Return the part of a tensor of the stack's shape that belongs to each parameter."""
        return [tensor[k][tuple(map(slice, p.shape))] for k, p in self._by_layer.items()]


class ParameterStacks:
    """All stacks of a pack.

    Args:
        stacks: the stacks.
    """

    def __init__(self, stacks: Sequence[ParameterStack]) -> None:
        self._parameters = [p for stack in stacks for p in stack.parameters]
        self._values = [part for stack in stacks for part in stack.parts(stack.tensor.detach())]
        self._flat: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._own = [torch.empty_like(p) for p in self._parameters]
        for _, alike in itertools.groupby(stacks, key=lambda stack: stack.tensor.dtype):
            self._sums += self._allocate_gradients(list(alike))

    def _allocate_gradients(self, stacks: Sequence[ParameterStack]) -> list[Tensor]:
        """Give stacks of one dtype gradients that lie in one tensor, and return the part of each parameter."""
        flat = stacks[0].tensor.new_zeros(sum(stack.tensor.numel() for stack in stacks), requires_grad=False)
        self._flat.append(flat)
        for stack, part in zip(stacks, flat.split([stack.tensor.numel() for stack in stacks]), strict=True):
            stack.tensor.grad = part.view(stack.tensor.shape)
        return [part for stack in stacks if stack.tensor.grad is not None for part in stack.parts(stack.tensor.grad)]

    @torch.no_grad()
    def read(self) -> None:
        """Copy the parameters' values into the stacks, whose gradients are then zero."""
        if self._parameters:
            torch._foreach_copy_(self._values, list[Tensor](self._parameters))
            torch._foreach_zero_(self._flat)

    @torch.no_grad()
    def write_gradients(self) -> None:
        """Add the stacks' gradients to the parameters' own."""
        if not self._parameters:
            return
        torch._foreach_copy_(self._own, self._sums)
        present = [(p.grad, own) for p, own in zip(self._parameters, self._own, strict=True) if p.grad is not None]
        if present:
            torch._foreach_add_(*map(list, zip(*present, strict=True)))
        for p, own in zip(self._parameters, self._own, strict=True):
            if p.grad is None:
                p.grad = own
