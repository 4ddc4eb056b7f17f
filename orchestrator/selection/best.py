"""Who may be the best of several methods: multiple comparison with the best (Hsu, 1984).

A method stays in the *tied set* unless another one is better beyond doubt. For the truly best method that can only
happen by bad luck, in at most one of twenty sweeps; so the set holds the best one with 95 % confidence, however many
methods there are.

Each method is held against all others at once: the critical value is the quantile of the largest standardised lead
that any of them would have if all were equal, drawn from a multivariate t distribution with the covariance of the
evidence. It is never below the two-sided value for one pair. Otherwise the better of just two equal methods would be
called the winner twice as often as allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.selection.evidence import Evidence, t_quantile

DRAWS = 20_000


@dataclass(frozen=True)
class Standing:
    """Where a method stands against the best.

    Args:
        behind: how far at least, in units of the metric; 0 for who may be the best.
        reach: the smallest difference to its nearest rival that would have been beyond doubt.
    """

    behind: float
    reach: float

    @property
    def tied(self) -> bool:
        """It may be the best."""
        return self.behind <= 0


def standings(evidence: Evidence, *, higher_is_better: bool, level: float = 0.95, seed: int = 0) -> list[Standing]:
    """Every method against all others.

    Args:
        evidence: the methods' scores.
        higher_is_better: the metric's direction.
        level: how often the tied set holds the truly best method, at least.
        seed: of the draws that give the critical values.
    """
    count = len(evidence.means)
    if count == 1:
        return [Standing(0.0, _alone(evidence, level))]
    signed = evidence.means if higher_is_better else -evidence.means
    equal = _equal(evidence, seed)
    return [_standing(evidence, signed, equal, method, level, seed) for method in range(count)]


def _standing(
    evidence: Evidence,
    signed: NDArray[np.float64],
    equal: NDArray[np.float64],
    method: int,
    level: float,
    seed: int,
) -> Standing:
    others = [other for other in range(len(signed)) if other != method]
    contrasts = [evidence.contrast(method, other) for other in others]
    errors = np.array([error for error, _ in contrasts])
    critical = _critical(equal[:, others] - equal[:, [method]], errors, min(f for _, f in contrasts), level, seed)
    leads = signed[others] - signed[method]
    nearest = int(np.argmin(np.abs(leads)))
    return Standing(max(0.0, float((leads - critical * errors).max())), float(critical * errors[nearest]))


def _critical(
    differences: NDArray[np.float64], errors: NDArray[np.float64], freedom: float, level: float, seed: int
) -> float:
    """The largest standardised lead that chance gives to any of them; at least what one pair needs."""
    known = errors > 0
    pair = t_quantile((1 + level) / 2, freedom)
    if known.sum() < 2:
        return pair
    scale = np.sqrt(np.random.default_rng([seed, 1]).chisquare(freedom, len(differences)) / freedom)
    largest = (differences[:, known] / errors[known]).max(axis=1) / scale
    return max(pair, float(np.quantile(largest, level)))


def _equal(evidence: Evidence, seed: int) -> NDArray[np.float64]:
    """What the means would be if all methods were equal; shape ``(draws, methods)``."""
    values, vectors = np.linalg.eigh(evidence.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.random.default_rng([seed, 0]).standard_normal((DRAWS, len(values))) @ root.T


def _alone(evidence: Evidence, level: float) -> float:
    """What a rival that is as uncertain, and on rows of its own, would have had to differ by."""
    rows, seeds = float(evidence.row_covariance[0, 0]), float(evidence.seed_parts[0])
    return t_quantile((1 + level) / 2, evidence.freedom_of(rows, seeds)) * float(np.sqrt(2 * (rows + seeds)))
