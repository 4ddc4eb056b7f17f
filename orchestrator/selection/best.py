"""Who may be the best of several methods: multiple comparison with the best (Hsu, 1984).

A method stays in the *tied set* unless another one is better beyond doubt. For the truly best method that can only
happen by bad luck, in at most one of twenty sweeps; so the set holds the best one with 95 % confidence, however many
methods there are.

Each method is held against all others at once: the critical value is the quantile of the largest standardised lead
that any of them would have if all were equal. It is never below the two-sided value of any one pair. Otherwise the
better of just two equal methods would be called the winner twice as often as allowed.

What rows add to a lead is taken as normal, and what seeds add as Student's t with the freedom of their pooled variance
(the fiducial sum of Behrens and Fisher). One t for both, with Satterthwaite's degrees of freedom, is closer on average
but names false winners in 7 % where the seed variance comes from two differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.selection.evidence import Evidence, t_quantile

DRAWS = 20_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rank:
    """Where a method stands against the best.

    Args:
        gap: how far at least, in units of the metric; 0 for who may be the best.
        minimum_detectable_difference: the smallest difference to its nearest rival that would have been beyond doubt.
    """

    gap: float
    minimum_detectable_difference: float

    @property
    def tied(self) -> bool:
        """It may be the best."""
        return self.gap <= 0


def ranks(evidence: Evidence, *, higher_is_better: bool, level: float = 0.95, seed: int = 0) -> list[Rank]:
    """Every method against all others.

    Args:
        evidence: the methods' scores.
        higher_is_better: the metric's direction.
        level: how often the tied set holds the truly best method, at least.
        seed: of the draws that give the critical values.
    """
    count = len(evidence.means)
    if count == 1:
        return [Rank(0.0, _alone(evidence, level))]
    signed = evidence.means if higher_is_better else -evidence.means
    equal = _equal(evidence, seed)
    return [_rank(evidence, signed, equal, method, level) for method in range(count)]


def _rank(evidence: Evidence, signed: Floats, equal: Floats, method: int, level: float) -> Rank:
    others = [other for other in range(len(signed)) if other != method]
    errors = np.array([evidence.contrast(method, other)[0] for other in others])
    allowed = _critical(equal[:, others] - equal[:, [method]], errors, level) * errors
    leads = signed[others] - signed[method]
    nearest = int(np.argmin(np.abs(leads)))
    return Rank(max(0.0, float((leads - allowed).max())), float(allowed[nearest]))


def _critical(leads: Floats, errors: Floats, level: float) -> float:
    """The largest standardised lead that chance gives to any of them; at least what one pair needs."""
    known = errors > 0
    if not known.any():
        return 0.0
    standard = leads[:, known] / errors[known]
    pairs = np.quantile(np.abs(standard), level, axis=0)
    return float(max(np.quantile(standard.max(axis=1), level), pairs.max()))


def _equal(evidence: Evidence, seed: int) -> Floats:
    """By what the means would differ from the truth; shape ``(draws, methods)``."""
    random = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(evidence.row_covariance)
    rows = random.standard_normal((DRAWS, len(values))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    if not evidence.freedom:
        drawn: Floats = rows
        return drawn
    # One pooled variance: whoever's it is, it was too small or too large for all of them.
    scale = np.sqrt(evidence.freedom / random.chisquare(evidence.freedom, (DRAWS, 1)))
    both: Floats = rows + scale * random.standard_normal(rows.shape) * np.sqrt(evidence.seed_parts)
    return both


def _alone(evidence: Evidence, level: float) -> float:
    """What a rival that is as uncertain, and on rows of its own, would have had to differ by."""
    rows, seeds = float(evidence.row_covariance[0, 0]), float(evidence.seed_parts[0])
    return t_quantile((1 + level) / 2, evidence.freedom_of(rows, seeds)) * float(np.sqrt(2 * (rows + seeds)))
