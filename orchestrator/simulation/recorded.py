"""A recorded table in place of training: a proposal gets the curve of the nearest configuration that was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.trial_types import TrialKey
from orchestrator.simulation.curves import Curve
from orchestrator.simulation.spaces import is_logarithmic, is_number, plain
from orchestrator.simulation.table import Table


class Recorded:
    """Gives each trial a curve of its method that no other trial has, as long as there is one.

    Args:
        table: The curves.
    """

    def __init__(self, table: Table) -> None:
        self._methods = {method: _Neighbours(curves) for method, curves in table.methods.items()}
        self._curves: dict[TrialKey, Curve] = {}

    def of(self, key: TrialKey, params: Mapping[str, Any]) -> Curve:
        """Return the trial's curve; of several that are equally near, that with the lowest number."""
        if key not in self._curves:
            self._curves[key] = self._methods[key.method].take(params)
        return self._curves[key]


class _Neighbours:
    """One method's curves, by the Euclidean distance of their parameters.

    Numbers are scaled to the method's range, on a log scale where that range is wide; other values have distance 0 if
    they are equal and 1 otherwise.
    """

    def __init__(self, curves: Sequence[Curve]) -> None:
        self._curves = curves
        names = dict.fromkeys(name for curve in curves for name in curve.params)
        self._axes = [_Axis(name, [plain(curve.params.get(name)) for curve in curves]) for name in names]
        self._used = np.zeros(len(curves), dtype=bool)

    def take(self, params: Mapping[str, Any]) -> Curve:
        squares = sum((axis.squares(params) for axis in self._axes), np.zeros(len(self._curves)))
        if not self._used.all():
            squares = np.where(self._used, math.inf, squares)
        nearest = int(squares.argmin())
        self._used[nearest] = True
        return self._curves[nearest]


class _Axis:
    """The values of one parameter in all curves."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self._name = name
        self._values = values
        self._positions: NDArray[np.float64] | None = None
        if all(is_number(value) for value in values):
            self._log = is_logarithmic(values)
            positions = np.array([self._position(value) for value in values])
            self._range = max(float(np.ptp(positions)), 1e-12)
            self._positions = positions

    def squares(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the squared distance of every curve's value to a configuration's, shape ``(curves,)``."""
        value = plain(params.get(self._name))
        if self._positions is None or not is_number(value):
            return np.array([float(value != other) for other in self._values])
        return np.square((self._positions - self._position(value)) / self._range)

    def _position(self, value: float) -> float:
        return math.log(max(value, 1e-300)) if self._log else float(value)
