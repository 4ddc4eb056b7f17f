"""Sizes that `peft` ties to the widths of layers, brought to what an architecture allows.

A search space knows no architecture, and one value has to fit every targeted layer. So these sizes are limits: a block
is the widest that divides all layers and is not above what was asked for, and a count is at most what the smallest
layer holds. The adapter's configuration records what was used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from torch import nn

from methods.base.spec import MethodError
from methods.families.peft_type_params import PeftTypeParams

_BLOCK = re.compile(r"(\w+_)?block_size|group_size|vector_length")
# the types whose layers take no rank at which the update is as large as the weight
_BOUNDED_RANK = frozenset({"miss", "psoft", "shira"})
Shape = tuple[int, int]


def fitted(params: PeftTypeParams, shapes: Iterable[Shape]) -> dict[str, int]:
    """The sizes to use instead of those asked for.

    Args:
        params: of a type with targets.
        shapes: ``(in, out)`` of every targeted layer.

    Raises:
        MethodError: if no block divides all layers.
    """
    known, asked = set(shapes), params.to_dict()
    found = {name: _block(name, value, known) for name, value in asked.items() if _BLOCK.fullmatch(name)}
    if "n_frequency" in asked:
        found["n_frequency"] = min(asked["n_frequency"], *(rows * columns for rows, columns in known))
    if params.kind in _BOUNDED_RANK:
        found["r"] = min(asked["r"], *(rows * columns // (rows + columns) for rows, columns in known))
    return found


def shape(layer: nn.Module) -> Shape:
    """``(in, out)`` of a linear layer, GPT-2's kind included."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    rows, columns = layer.weight.shape  # type: ignore[misc]
    return int(rows), int(columns)


def _block(name: str, asked: int, shapes: set[Shape]) -> int:
    widths = sorted({width for both in shapes for width in both})
    common = math.gcd(*widths)
    fits = [size for size in range(2, min(asked, common) + 1) if common % size == 0]
    if not fits:
        listed = ", ".join(str(width) for width in widths)
        raise MethodError(f"{name} is {asked}; no size from 2 up to that divides every layer's width: {listed}")
    return fits[-1]
