"""Layers whose small products can be computed together with those of like layers of other trials."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Stackable(Protocol):
    """A layer that can be stacked with others of its class.

    Parameters of several layers are stacked along a new first dimension and padded with zeros at the end of every other
    one, so that layers of different ranks or widths can be stacked. Zeros must change no output, and get no gradient.
    """

    def stack_key(self) -> Hashable | None:
        """Return what layers must have in common to be stacked; ``None`` if this one cannot be in its present state."""
        ...

    def stack_parameters(self) -> tuple[nn.Parameter | None, ...]:
        """Return the trainable parameters, in the order in which :meth:`stacked_forward` takes their stacks.

        ``None`` stands for one that other layers of the key may have; one that none has makes no stack.
        """
        ...

    @classmethod
    def prepare(cls, groups: Sequence[Sequence[Self]]) -> Sequence[Any]:
        """Return what :meth:`stacked_forward` takes as ``prepared`` for each group of stacked layers.

        Called once before each pass, so that what all layers of a pack need is computed in few calls.
        """
        ...

    @classmethod
    def stacked_forward(
        cls, layers: Sequence[Self], x: Tensor, stacks: Sequence[Tensor], constants: Tensor, prepared: Any
    ) -> Any:
        """Return the outputs of all layers.

        Args:
            layers: the layers, of one key.
            x: inputs of shape ``(layers * rows, ..., in)``, those of each layer in turn.
            stacks: stacked parameters, each of shape ``(layers, ...)``.
            constants: :meth:`stack_constant` of each layer, shape ``(layers, 1, 1)``.
            prepared: what :meth:`prepare` has returned for these layers.
        """
        ...

    def stack_constant(self) -> float:
        """Return a number that differs between the layers, such as the scale of an update."""
        ...
