"""The tuning gain: how much better a method's best trial would still become, were its search exhaustive.

Learned from recorded tables of exhaustive searches: each was searched many times as a sweep would, and after every
search it was written down by how much each method's best score in the table lies above its best score so far. The
gains are kept by method and number of full trials, as quantiles. They are in *units* of a sweep: the distance from its
best full trial down to the tenth percentile of its full trials, so that they carry over to other tasks and metrics. Of
methods without a record, those of the same category count; of categories without one, all.

What is learned stands in ``tuning_gain.json``; ``python -m benchmarks.tuning_gain`` learns it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.selection.tied_set import DRAWS

Floats = NDArray[np.float64]
FILE = Path(__file__).with_name("tuning_gain.json")
ANY = "any"
COUNTS = (1, 2, 4, 8, 16)
"""Numbers of full trials by which gains are kept; a number between two of them counts as the lower one."""
PROBABILITIES = np.linspace(0.0, 1.0, 21)
"""Probabilities of the kept quantiles."""
FEWEST_GAINS = 20
"""Gains that quantiles are kept of; a method with fewer has those of fewer trials, or its category's."""
LOW_END = 0.1


@dataclass(frozen=True)
class Gain:
    """What one search of a recorded table left to be gained.

    Args:
        method: Name of the method.
        trials: Number of its full trials in the search.
        units: Its best score in the table above its best in the search, in units of the search.
    """

    method: str
    trials: int
    units: float


@dataclass(frozen=True)
class TuningGain:
    """The learned gains.

    Args:
        quantiles: Quantiles of the gains at :data:`PROBABILITIES`, by name (a method's, ``category NAME``, or
            :data:`ANY`) and number of full trials.
    """

    quantiles: Mapping[str, Mapping[int, Floats]]

    @classmethod
    def learn(cls, gains: Iterable[Gain]) -> Self:
        """Return the quantiles of gains of many searches."""
        grouped: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for gain in gains:
            for name in (gain.method, *_fallbacks(gain.method)):
                grouped[name][floor_count(gain.trials, COUNTS)].append(gain.units)
        return cls(
            {
                name: {
                    count: np.quantile(units, PROBABILITIES)
                    for count, units in sorted(by_count.items())
                    if len(units) >= FEWEST_GAINS or name == ANY
                }
                for name, by_count in grouped.items()
            }
        )

    @classmethod
    def none(cls) -> Self:
        """Return gains of 0, as of sweeps whose methods are tuned to the end."""
        return cls({ANY: {1: np.zeros(len(PROBABILITIES))}})

    def of(self, method: str, trials: int) -> Floats:
        """Return the quantiles of a method's gain after a number of full trials, in units."""
        by_count = self.quantiles.get(method)  # the category is looked up only where it is needed: that imports torch
        if not by_count:
            fallbacks = _fallbacks(method) if len(self.quantiles) > 1 else (ANY,)
            by_count = next(found for name in fallbacks if (found := self.quantiles.get(name)))
        return by_count[floor_count(trials, tuple(by_count))]

    def draw(self, methods: Sequence[str], trials: Sequence[int], unit: float, room: Floats, seed: int = 0) -> Floats:
        """Draw gains, independently for each method; shape ``(draws, methods)``, in units of the metric.

        Args:
            methods: Names of the methods.
            trials: Full trials of each.
            unit: Unit of the sweep, see :func:`unit_of`.
            room: How far each method's score is from the metric's best value, shape ``(methods,)``.
            seed: Seed of the draws.
        """
        random = np.random.default_rng(seed)
        columns = [
            np.interp(random.random(DRAWS), PROBABILITIES, self.of(method, count)) * unit
            for method, count in zip(methods, trials, strict=True)
        ]
        return np.minimum(np.stack(columns, axis=1), room)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            name: {str(count): np.round(values, 3).tolist() for count, values in by_count.items()}
            for name, by_count in self.quantiles.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Sequence[float]]]) -> Self:
        """Return the gains that :meth:`to_dict` has described."""
        return cls(
            {
                name: {int(count): np.asarray(quantiles, np.float64) for count, quantiles in by_count.items()}
                for name, by_count in values.items()
            }
        )


@cache
def learned_gain() -> TuningGain:
    """Return the gains that were learned from the recorded tables."""
    return TuningGain.from_dict(json.loads(FILE.read_text(encoding="utf-8"))["gains"])


def unit_of(scores: Iterable[float], metric: Metric) -> float:
    """Return the unit of a sweep: from its best full trial down to the tenth percentile of its full trials."""
    signed = metric.sign * np.array([score for score in scores if np.isfinite(score)], np.float64)
    return float(signed.max() - np.quantile(signed, LOW_END)) if len(signed) else 0.0


def room_of(scores: Sequence[float] | Floats, metric: Metric) -> Floats:
    """Return how far scores are from the metric's best value."""
    best = metric.bounds[1] if metric.higher_is_better else metric.bounds[0]
    return np.maximum(0.0, metric.sign * (best - np.asarray(scores, np.float64)))


def floor_count(trials: int, counts: Sequence[int]) -> int:
    """Return the largest of some counts that a number of trials reaches; the smallest if it reaches none."""
    return max((count for count in counts if count <= trials), default=min(counts))


def _fallbacks(method: str) -> tuple[str, ...]:
    category = _category(method)
    return (f"category {category}", ANY) if category else (ANY,)


@cache
def _category(method: str) -> str:
    """Return a method's category; empty for a plugin that is not loaded."""
    import methods

    try:
        return methods.get(method).category.value
    except (methods.MethodError, ImportError, KeyError):
        return ""
