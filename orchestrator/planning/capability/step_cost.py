"""Model the cost of a training step in passes through the backbone, from the architecture alone."""

from __future__ import annotations

from methods.base.architecture import blocks
from methods.base.spec import Attached, MethodError
from orchestrator.backbone.shared import SharedBackbone


def passes(attached: Attached, backbone: SharedBackbone) -> float:
    """Return the cost of a row in a training step, in forward passes of that row through the bare backbone.

    It is the sum of one forward pass, a backward pass through the blocks above the first trained one, and the gradients
    of trained weights. It models arithmetic, not a machine: with measured times, the search would decide differently on
    each machine, and a sweep could not be repeated.

    Args:
        attached: a method that is attached to a view of ``backbone``.
        backbone: the backbone.
    """
    trained = attached.trainable()
    count = sum(parameter.numel() for parameter in trained.values())
    if not count:
        return 1.0
    return 1.0 + _fraction_above(list(trained), backbone) + min(1.0, count / backbone.parameters())


def _fraction_above(trained: list[str], backbone: SharedBackbone) -> float:
    """Return the fraction of blocks that gradients pass through.

    A trained parameter outside all blocks and outside the head stands before the first block, as embeddings do.
    """
    try:
        names = [block.name for block in blocks(backbone.model)]
    except MethodError:
        return 1.0
    lowest = len(names)
    for parameter in trained:
        positions = [position for position, name in enumerate(names) if f"{name}." in parameter]
        if positions:
            lowest = min(lowest, positions[0])
        elif not any(head in parameter.split(".") for head in _last_parts(backbone.context.head)):
            return 1.0
    return (len(names) - lowest) / len(names)


def _last_parts(names: tuple[str, ...]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}
