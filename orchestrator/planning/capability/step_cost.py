"""What a training step costs, from the architecture alone."""

from __future__ import annotations

from methods.base.architecture import blocks
from methods.base.spec import Attached, MethodError
from orchestrator.backbone.shared import SharedBackbone


def passes(attached: Attached, backbone: SharedBackbone) -> float:
    """What a row costs in a training step, in passes of that row through the bare backbone.

    One forward, a backward through the blocks above the first that trains, and the gradients of the weights that do.
    It is a model of the arithmetic and not of any machine, so that the same sweep has the same costs everywhere.
    """
    trained = attached.trainable()
    count = sum(parameter.numel() for parameter in trained.values())
    if not count:
        return 1.0
    return 1.0 + _share_above(list(trained), backbone) + min(1.0, count / backbone.parameters())


def _share_above(trained: list[str], backbone: SharedBackbone) -> float:
    """Which part of the blocks a gradient has to pass; what sits in no block and not in the head feeds them all."""
    try:
        names = [block.name for block in blocks(backbone.model)]
    except MethodError:
        return 1.0
    lowest = len(names)
    for parameter in trained:
        inside = [at for at, name in enumerate(names) if f"{name}." in parameter]
        if inside:
            lowest = min(lowest, inside[0])
        elif not any(head in parameter.split(".") for head in _last_parts(backbone.context.head)):
            return 1.0
    return (len(names) - lowest) / len(names)


def _last_parts(names: tuple[str, ...]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}
