"""The settings of training that a task's methods have in common, such as the learning rate and the batch size.

A method has a handful of trials when it is compared with others, too few to show how it is best trained; all methods
together have many. So while a study's sampler would still draw at random, the results of all methods decide between
candidates for the shared settings. Parameters that few methods have are left to their own studies.

A value is compared by its position in its own method's range: each method keeps its range of learning rates, and the
upper end of one is evidence for the upper end of another. Scores are compared within a method only.
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
from orchestrator.search.history import History, is_default
from search_spaces._base import SearchSpace

EXAMINED_TRIALS = 20
"""Number of a study's first trials that are examined, which bounds the time; its sampler learns from later ones."""
CANDIDATES = 32
LENGTH_SCALE = 0.4
"""Length scale of the Gaussian process, as a fraction of a range."""
NOISE_VARIANCE = 0.5
"""Share of a rank's variance that the settings do not explain: the method's other parameters, and chance."""

Matrix = NDArray[np.float64]
Setting = tuple[str, Hashable]
"""A parameter's name and kind."""


@dataclass(frozen=True)
class _Member:
    """A study.

    Args:
        history: Its trials.
        sign: 1 if higher values are better, and -1 otherwise.
        axes: Axes of the parameters that have more than one value.
    """

    history: History
    sign: int
    axes: Mapping[Setting, Axis]

    def position(self, trial: FrozenTrial, setting: Setting) -> float:
        """Return the position of a trial's value; NaN if the method has no such parameter."""
        return self.axes[setting].position(trial.params[setting[0]]) if setting in self.axes else math.nan


class SharedSettings:
    """Proposes the shared settings of one task's studies from the results of all of them."""

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}

    def join(self, study: str, space: SearchSpace, history: History, *, higher_is_better: bool) -> None:
        """Add a study.

        Args:
            study: Its name.
            space: Its search space.
            history: Its trials, which are read at each proposal.
            higher_is_better: The direction of their values.
        """
        axes = {
            (name, _kind(distribution)): axis_of(distribution)
            for name, distribution in space.distributions.items()
            if not distribution.single()
        }
        self._members[study] = _Member(history, 1 if higher_is_better else -1, axes)

    def propose(self, study: str, seed: int) -> dict[str, Any]:
        """Return settings for a study's next trial.

        Candidates are drawn uniformly over the ranges; a function is drawn from the posterior given the ranks so far,
        and the candidate with its highest value is returned (Thompson sampling; 1933), so that regions with few results
        are tried as well.

        Args:
            study: One of the studies that joined.
            seed: Seed of 32 bits of the draws.

        Returns:
            Values by parameter; empty while there are no results.
        """
        axes = self._shared_axes(study)
        positions, observed = self._observations(list(axes))
        if not axes or not len(observed):
            return {}
        rng = np.random.default_rng(seed)
        candidates = [[axis.value(rng.random()) for axis in axes.values()] for _ in range(CANDIDATES)]
        candidate_positions = np.array(
            [
                [axis.position(value) for axis, value in zip(axes.values(), candidate, strict=True)]
                for candidate in candidates
            ]
        )
        best = candidates[int(np.argmax(_posterior_sample(positions, observed, candidate_positions, rng)))]
        return {name: value for (name, _), value in zip(axes, best, strict=True)}

    def _shared_axes(self, study: str) -> dict[Setting, Axis]:
        """Return those of a study's parameters that more than half of the methods have, and not this study alone."""
        counts = Counter(setting for member in self._members.values() for setting in member.axes)
        threshold = max(1, len(self._members) / 2)
        return {setting: axis for setting, axis in self._members[study].axes.items() if counts[setting] > threshold}

    def _observations(self, settings: Sequence[Setting]) -> tuple[Matrix, Matrix]:
        """Return positions, shape ``(trials, settings)``, and ranks, shape ``(trials,)``, of all studies' trials.

        Defaults are left out: a default was tuned as a whole, so that its rank says little about its settings.
        """
        positions, observed = [], []
        for member in self._members.values():
            trials = [trial for trial in member.history.first(EXAMINED_TRIALS) if trial.intermediate_values]
            for trial, rank in zip(trials, scaled_ranks(trials, member.sign), strict=True):
                if not is_default(trial):
                    positions.append([member.position(trial, setting) for setting in settings])
                    observed.append(rank)
        return np.array(positions), np.array(observed)


def scaled_ranks(trials: Sequence[FrozenTrial], sign: int) -> list[float]:
    """Return the ranks of trials among each other, scaled to mean 0 and, for many trials, variance 1.

    Two trials are compared at the last rung that both have reached. The share of trials that a trial beats is shrunk
    towards a half where there are few (Laplace's rule of succession), so a lone trial is in the middle.

    Args:
        trials: Trials of one method with a value each.
        sign: 1 if higher values are better, and -1 otherwise.
    """
    count = len(trials)
    wins = [math.fsum(_wins(trial, rival, sign) for rival in trials if rival is not trial) for trial in trials]
    # a uniform share has the variance 1 / 12
    return [math.sqrt(12) * ((trial_wins + 1) / (count + 1) - 0.5) for trial_wins in wins]


def _wins(trial: FrozenTrial, rival: FrozenTrial, sign: int) -> float:
    """Return 1 if a trial beats its rival, 0.5 for a tie, and 0 otherwise."""
    rung = min(max(trial.intermediate_values), max(rival.intermediate_values))
    value, rival_value = (_gain(either.intermediate_values[rung], sign) for either in (trial, rival))
    return 0.5 if value == rival_value else float(value > rival_value)


def _gain(value: float, sign: int) -> float:
    return sign * value if math.isfinite(value) else -math.inf


def _kind(distribution: BaseDistribution) -> Hashable:
    """Return what two parameters of one name must share: numbers of any range do, choices only with equal choices."""
    return frozenset(map(repr, distribution.choices)) if isinstance(distribution, CategoricalDistribution) else "number"


def _posterior_sample(positions: Matrix, observed: Matrix, candidates: Matrix, rng: np.random.Generator) -> Matrix:
    """Draw a function from the posterior of a Gaussian process (Rasmussen and Williams, 2006, 2.2).

    Args:
        positions: Positions of the observations, shape ``(trials, settings)``; NaN where a method lacks a setting.
        observed: Their ranks, shape ``(trials,)``.
        candidates: Positions of the candidates, shape ``(candidates, settings)``.
        rng: Source of the draw.

    Returns:
        The function's values at the candidates, shape ``(candidates,)``.
    """
    cross = _covariance(candidates, positions)
    noisy = _covariance(positions, positions) + NOISE_VARIANCE * np.eye(len(observed))
    solved = np.linalg.solve(noisy, np.c_[observed, cross.T])
    posterior = _covariance(candidates, candidates) - cross @ solved[:, 1:]
    # symmetric and with a small diagonal: rounding would make the decomposition fail otherwise
    root = np.linalg.cholesky((posterior + posterior.T) / 2 + 1e-6 * np.eye(len(candidates)))
    return cross @ solved[:, 0] + root @ rng.standard_normal(len(candidates))


def _covariance(rows: Matrix, columns: Matrix) -> Matrix:
    """Return the covariance of a sum of one function per setting; a missing setting adds nothing."""
    kernel = np.exp(-0.5 * np.square((rows[:, None] - columns[None]) / LENGTH_SCALE))
    return np.asarray(np.nansum(kernel, axis=2) / max(1, rows.shape[1]))
