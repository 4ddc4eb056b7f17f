"""The settings of training that a task's methods have in common, such as the learning rate and the batch size.

A method has a handful of trials when it is compared with others, too few to tell how it wants to be trained; all
methods together have many. So what was seen of these settings in any method's trials decides between candidates for
them, as long as a study's sampler would draw at random. What only some methods have is left to their own studies.

A value is looked at by its place in its own method's range: each method keeps its range of learning rates, and the
upper end of one speaks for the upper end of another. Scores are compared within a method alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from orchestrator.search.axes import Axis, axis_of
from orchestrator.search.history import History
from search_spaces._base import SearchSpace

FIRST = 20
"""So many of a study's trials are looked at, for the time that takes; its sampler knows the later ones."""
CANDIDATES = 32
WIDTH = 0.4
"""In shares of a range: how far what was seen at one place speaks for others."""
NOISE = 0.5
"""Of a standing's variance, what the settings do not explain: parameters of the method's own, and chance."""

Matrix = NDArray[np.float64]
Setting = tuple[str, Hashable]
"""A parameter's name and kind."""


@dataclass(frozen=True)
class _Member:
    """A study.

    Args:
        history: its trials.
        sign: 1 if higher values are better, and -1 otherwise.
        axes: of the parameters that have more than one value.
    """

    history: History
    sign: int
    axes: Mapping[Setting, Axis]

    def place(self, trial: FrozenTrial, setting: Setting) -> float:
        """Where a trial is; NaN if the method has no such parameter."""
        return self.axes[setting].place(trial.params[setting[0]]) if setting in self.axes else math.nan


class TrainingSettings:
    """What the studies of one task tell each other."""

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}

    def join(self, study: str, space: SearchSpace, history: History, *, higher_is_better: bool) -> None:
        """Take a study in."""
        many = {name: one for name, one in space.distributions.items() if not one.single()}
        axes = {(name, _kind(one)): axis_of(one) for name, one in many.items()}
        self._members[study] = _Member(history, 1 if higher_is_better else -1, axes)

    def propose(self, study: str, seed: int) -> dict[str, Any]:
        """Settings for a study's next trial.

        Candidates are drawn all over the ranges, and of a function drawn from the posterior given the standings so far
        the best is taken (Thompson sampling; 1933), so that what little is known of is tried as well.

        Args:
            study: one that joined.
            seed: of what is drawn, 32 bits.

        Returns:
            Nothing while there is nothing to learn from.
        """
        axes = self._shared(study)
        places, seen = self._seen(list(axes))
        if not axes or not len(seen):
            return {}
        draw = np.random.default_rng(seed)
        drawn = [[axis.value(draw.random()) for axis in axes.values()] for _ in range(CANDIDATES)]
        at = np.array([[axis.place(value) for axis, value in zip(axes.values(), one, strict=True)] for one in drawn])
        best = drawn[int(np.argmax(_posterior_draw(places, seen, at, draw)))]
        return {name: value for (name, _), value in zip(axes, best, strict=True)}

    def _shared(self, study: str) -> dict[Setting, Axis]:
        """Those of a study's parameters that more than half of the methods have, and not it alone."""
        having = Counter(setting for one in self._members.values() for setting in one.axes)
        enough = max(1, len(self._members) / 2)
        return {setting: axis for setting, axis in self._members[study].axes.items() if having[setting] > enough}

    def _seen(self, settings: Sequence[Setting]) -> tuple[Matrix, Matrix]:
        """Where trials of all studies lay, and how they stand. Defaults are left out.

        A default was tuned as a whole: that it does well says little of its settings.
        """
        places, found = [], []
        for member in self._members.values():
            trials = [one for one in member.history.first(FIRST) if one.intermediate_values]
            for trial, rank in zip(trials, ranks(trials, member.sign), strict=True):
                if trial.number - 1:
                    places.append([member.place(trial, one) for one in settings])
                    found.append(rank)
        return np.array(places), np.array(found)


def ranks(trials: Sequence[FrozenTrial], sign: int) -> list[float]:
    """How trials stand among each other: of mean 0, and of variance 1 where they are many.

    Two are compared at the last rung that both have come to. The share that a trial beats is drawn towards a half
    where there are few (Laplace's rule of succession), so a lone trial stands in the middle.

    Args:
        trials: of one method, with a value each.
        sign: 1 if higher values are better, and -1 otherwise.
    """
    count = len(trials)
    beaten = [math.fsum(_beats(one, other, sign) for other in trials if other is not one) for one in trials]
    return [math.sqrt(12) * ((each + 1) / (count + 1) - 0.5) for each in beaten]


def _beats(one: FrozenTrial, other: FrozenTrial, sign: int) -> float:
    rung = min(max(one.intermediate_values), max(other.intermediate_values))
    ours, theirs = (_worth(trial.intermediate_values[rung], sign) for trial in (one, other))
    return 0.5 if ours == theirs else float(ours > theirs)


def _worth(value: float, sign: int) -> float:
    return sign * value if math.isfinite(value) else -math.inf


def _kind(distribution: BaseDistribution) -> Hashable:
    """Numbers are like numbers, whatever their range; choices are only like the same choices."""
    return frozenset(map(repr, distribution.choices)) if isinstance(distribution, CategoricalDistribution) else "number"


def _posterior_draw(places: Matrix, seen: Matrix, at: Matrix, draw: np.random.Generator) -> Matrix:
    """A function's values, drawn from the posterior of a Gaussian process (Rasmussen and Williams, 2006, 2.2)."""
    across = _covariance(at, places)
    solved = np.linalg.solve(_covariance(places, places) + NOISE * np.eye(len(seen)), np.c_[seen, across.T])
    left = _covariance(at, at) - across @ solved[:, 1:]
    root = np.linalg.cholesky((left + left.T) / 2 + 1e-6 * np.eye(len(at)))
    return across @ solved[:, 0] + root @ draw.standard_normal(len(at))


def _covariance(one: Matrix, other: Matrix) -> Matrix:
    """The sum of a function of each setting: what a trial lacks tells nothing of it."""
    near = np.exp(-0.5 * np.square((one[:, None] - other[None]) / WIDTH))
    return np.asarray(np.nansum(near, axis=2) / max(1, one.shape[1]))
