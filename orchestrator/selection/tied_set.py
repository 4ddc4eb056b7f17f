"""Which of several methods may be the best: multiple comparison with the best (Hsu, 1984).

A method stays in the *tied set* unless another one is significantly better. The truly best method leaves the set with
a probability of at most 5 %, so the set holds it with 95 % confidence, however many methods there are.

Each method is compared with all others at once: the critical value is the quantile of the largest standardised lead
that any of them would have if all were equal. It is never below the two-sided value of any one pair. Otherwise the
better of just two equal methods would be called the winner twice as often as allowed.

The contribution of the rows to a lead is taken as normal, and that of the seeds as Student's t with the degrees of
freedom of their pooled variance (the fiducial sum of Behrens and Fisher). One t for both, with Satterthwaite's degrees
of freedom, is closer on average but names false winners in 7 % of the cases where the seed variance comes from two
differences.

Scores say how good the methods are as they were tuned. What tuning could still bring is allowed for on top: a method is
behind only if the other's lead exceeds the noise *and* what it may still gain more than the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.selection.evidence import Evidence, t_quantile

DRAWS = 20_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rank:
    """A method's position relative to the best.

    Args:
        gap: lower bound of the distance to the best method, in units of the metric; 0 for a method that may be best.
        minimum_detectable_difference: the smallest difference to its nearest rival that would have been significant.
    """

    gap: float
    minimum_detectable_difference: float

    @property
    def tied(self) -> bool:
        """Whether the method may be the best."""
        return self.gap <= 0


def ranks(
    evidence: Evidence, metric: Metric, *, level: float = 0.95, seed: int = 0, tuning: Floats | None = None
) -> list[Rank]:
    """Return each method's rank among all.

    Args:
        evidence: scores of the methods with their covariance.
        metric: metric of the scores.
        level: probability with which the tied set holds the truly best method, at least.
        seed: seed of the draws that give the critical values.
        tuning: how much more each method may still gain than each rival, shape ``(methods, methods)``, see
            :func:`orchestrator.selection.gain_draws.allowances`; nothing if left out.
    """
    count = len(evidence.means)
    if count == 1:
        return [Rank(0.0, _difference_to_unknown_rival(evidence, level))]
    signed = metric.sign * evidence.means
    errors = errors_of_equals(evidence, seed)
    gains = np.zeros((count, count)) if tuning is None else tuning
    return [_rank(evidence, signed, errors, method, level, gains[method]) for method in range(count)]


def _rank(evidence: Evidence, signed: Floats, errors: Floats, method: int, level: float, gains: Floats) -> Rank:
    rivals = [rival for rival in range(len(signed)) if rival != method]
    standard_errors = np.array([evidence.contrast(method, rival)[0] for rival in rivals])
    critical = critical_value(errors[:, rivals] - errors[:, [method]], standard_errors, level)
    allowed = critical * standard_errors
    leads = signed[rivals] - signed[method]
    nearest = int(np.argmin(np.abs(leads)))
    gap = float((leads - allowed - gains[rivals]).max())
    return Rank(max(0.0, gap), float(allowed[nearest]))


def critical_value(leads: Floats, standard_errors: Floats, level: float) -> float:
    """Return the quantile of the largest standardised lead among equal methods; at least what one pair needs."""
    uncertain = standard_errors > 0
    if not uncertain.any():
        return 0.0
    standardised = leads[:, uncertain] / standard_errors[uncertain]
    pairs = np.quantile(np.abs(standardised), level, axis=0)
    return float(max(np.quantile(standardised.max(axis=1), level), pairs.max()))


def errors_of_equals(evidence: Evidence, seed: int) -> Floats:
    """Draw by how much the means differ from the truth; shape ``(draws, methods)``."""
    random = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(evidence.row_covariance)
    rows = random.standard_normal((DRAWS, len(values))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    if not evidence.freedom:
        errors: Floats = rows
        return errors
    # The seed variance is pooled: where it is estimated too small or too large, it is so for all methods at once.
    scale = np.sqrt(evidence.freedom / random.chisquare(evidence.freedom, (DRAWS, 1)))
    total: Floats = rows + scale * random.standard_normal(rows.shape) * np.sqrt(evidence.seed_parts)
    return total


def _difference_to_unknown_rival(evidence: Evidence, level: float) -> float:
    """Return what a rival of equal uncertainty, scored on independent rows, would have to differ by."""
    rows, seeds = float(evidence.row_covariance[0, 0]), float(evidence.seed_parts[0])
    return t_quantile((1 + level) / 2, evidence.freedom_of(rows, seeds)) * float(np.sqrt(2 * (rows + seeds)))
