"""A metric that a task is scored by: its name, direction, bounds, label, and the function that computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Statistic = Callable[[pa.Table, NDArray[np.int64]], NDArray[np.float64]]
    """From predictions and row indices of shape ``(samples, rows)`` to scores of shape ``(samples,)``."""

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric of a task type. Two metrics are equal if their names and directions are.

    Args:
        name: as in the configuration, in journals and in MLflow: ``macro_f1``.
        direction: whether a search maximizes or minimizes it.
        bounds: the lowest and the highest value that it can have.
        label: its name in text for people: ``macro-F1``.
        statistic: function that computes it on samples of rows; ``None`` for a metric that was read from a journal or a
            bundle, which record scores and no code.
        needs_generation: whether it is computed on generated text, which takes many times longer than a forward pass.
        needs_valid_references: whether it can refuse a reference, so that all are tried before anything is trained.
    """

    name: str
    direction: Direction = "maximize"
    bounds: tuple[float, float] = field(default=(0.0, 1.0), compare=False)
    label: str = field(default="", compare=False)
    statistic: Statistic | None = field(default=None, compare=False)
    needs_generation: bool = field(default=False, compare=False)
    needs_valid_references: bool = field(default=False, compare=False)

    @property
    def higher_is_better(self) -> bool:
        """Whether the direction is ``maximize``."""
        return self.direction == "maximize"

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: ``sign * score`` is to be maximized."""
        return 1 if self.higher_is_better else -1

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, so that hundredths mean the same in all such metrics."""
        return self.bounds == (0.0, 1.0)

    @property
    def worse(self) -> str:
        """``lower`` or ``higher``, whichever is worse, for sentences about differences."""
        return "lower" if self.higher_is_better else "higher"
