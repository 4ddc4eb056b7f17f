"""Sizes that `peft` ties to the widths of layers, reduced to values that an architecture allows.

A search space does not know the architecture, and one value has to fit every target layer. So these parameters are
upper limits: a block is the largest size up to the limit that divides the widths of all layers, and a count is at most
what the smallest layer holds. The adapter's configuration records the sizes in use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from torch import nn

from methods.base.spec import MethodError
from methods.families.peft_type_params import PeftTypeParams

_BLOCK = re.compile(r"(\w+_)?block_size|group_size|vector_length")
# types that refuse a rank at which the update is as large as the weight
_BOUNDED_RANK = frozenset({"miss", "psoft", "shira"})
Shape = tuple[int, int]


def fit_sizes(params: PeftTypeParams, shapes: Iterable[Shape]) -> dict[str, int]:
    """Return the parameters that have to be reduced for these layers, with the values to use.

    Args:
        params: parameters of a type with targets.
        shapes: ``(in, out)`` of every target layer.

    Raises:
        MethodError: if no block size divides the widths of all layers.
    """
    distinct_shapes, values = set(shapes), params.to_dict()
    sizes = {
        name: _block_size(name, value, distinct_shapes) for name, value in values.items() if _BLOCK.fullmatch(name)
    }
    if "n_frequency" in values:
        sizes["n_frequency"] = min(values["n_frequency"], *(rows * columns for rows, columns in distinct_shapes))
    if params.kind in _BOUNDED_RANK:
        sizes["r"] = min(values["r"], *(rows * columns // (rows + columns) for rows, columns in distinct_shapes))
    return sizes


def layer_shape(layer: nn.Module) -> Shape:
    """Return ``(in, out)`` of a linear layer, GPT-2's Conv1D included."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    rows, columns = layer.weight.shape  # type: ignore[misc]
    return int(rows), int(columns)


def _block_size(name: str, limit: int, shapes: set[Shape]) -> int:
    widths = sorted({width for shape in shapes for width in shape})
    divisor = math.gcd(*widths)
    sizes = [size for size in range(2, min(limit, divisor) + 1) if divisor % size == 0]
    if not sizes:
        listing = ", ".join(str(width) for width in widths)
        raise MethodError(f"{name} is {limit}; no size from 2 to {limit} divides every layer's width: {listing}")
    return sizes[-1]
