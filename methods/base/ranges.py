"""The ranges of hyperparameters by their names, read without torch: a configuration is checked by them, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ValueRange:
    """The values that a hyperparameter may have.

    Args:
        text: the range in words, as in "it must be at least 1".
        low: its low end.
        high: its high end.
        has_low: whether the low end belongs to it.
        has_high: whether the high end belongs to it.
    """

    text: str
    low: float
    high: float = float("inf")
    has_low: bool = True
    has_high: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a value is in the range; ``nan`` is in none."""
        above = value >= self.low if self.has_low else value > self.low
        return above and (value <= self.high if self.has_high else value < self.high)


_COUNT = ValueRange("at least 1", 1)
_POSITIVE = ValueRange("above 0", 0, has_low=False)
_SHARE = ValueRange("above 0 and at most 1", 0, 1, has_low=False, has_high=True)
_BELOW_ONE = ValueRange("in 0..1, below 1", 0, 1)
RANGES: Mapping[str, ValueRange] = {
    "learning_rate": _POSITIVE,
    "batch_size": _COUNT,
    "warmup": _BELOW_ONE,
    "weight_decay": ValueRange("at least 0", 0),
    "dropout": _BELOW_ONE,
    "rank": _COUNT,
    "init_rank": ValueRange("at least 2", 2),
    "alpha_ratio": _POSITIVE,
    "lr_ratio": _POSITIVE,
    "tokens": _COUNT,
    "bottleneck": _COUNT,
    "scale": _POSITIVE,
    "width": _COUNT,
    "depth": _COUNT,
    "examples": ValueRange("at least 0", 0),
    "fraction": _SHARE,
    "layer_decay": _SHARE,
    "target_ratio": ValueRange("above 0 and below 1: ranks can only fall", 0, 1, has_low=False),
    "tinit": _BELOW_ONE,
    "interval": _SHARE,
    "orthogonality": ValueRange("at least 0", 0),
    "projection_width": _COUNT,
    "ranks": _COUNT,
    "source_fraction": _BELOW_ONE,
    "target_lr_ratio": _POSITIVE,
}
"""The same name means the same in all methods of this package; a plugin's own hyperparameters may mean anything."""
OF_TRAINING = frozenset({"learning_rate", "batch_size", "warmup", "weight_decay"})
"""The hyperparameters that every method has, plugins too."""
