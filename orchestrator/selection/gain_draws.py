"""What tuning may still bring, drawn for the methods of a comparison: allowances, and probabilities to be the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from orchestrator.common.metric import Metric
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.results import MethodResult
from orchestrator.selection.tied_set import errors_of_equals
from orchestrator.selection.tuning_gain import Floats, TuningGain, learned_gain, room_of

LEVEL = 0.95
"""Quantile of the difference of two methods' gains that a method may be behind by and still stay."""
QUANTILE_DRAWS = 4_000


def draw_gains(results: Sequence[MethodResult], unit: float, metric: Metric, gain: TuningGain | None = None) -> Floats:
    """Draw what tuning may still bring to methods that were scored; shape ``(draws, methods)``.

    Args:
        results: Results of the methods.
        unit: Unit of the sweep; 0 if it is unknown.
        metric: The task's metric.
        gain: The gains; as they were learned from recorded tables, if left out.
    """
    methods, trials = [result.method for result in results], [result.trials for result in results]
    room = room_of([result.mean_score for result in results], metric)
    return (gain or learned_gain()).draw(methods, trials, unit, room)


def allowances(gains: Floats, rivals: Sequence[int] | None = None) -> Floats:
    """Return how much more each method may gain than each rival, at :data:`LEVEL`; at least 0.

    Args:
        gains: Drawn gains, shape ``(draws, methods)``.
        rivals: Positions of the rivals; all methods if left out.

    Returns:
        Allowances in units of the metric, shape ``(methods, rivals)``.
    """
    columns = range(gains.shape[1]) if rivals is None else rivals
    gains = gains[:QUANTILE_DRAWS]
    pairs = [np.quantile(gains - gains[:, [rival]], LEVEL, axis=0) for rival in columns]
    return np.maximum(0.0, np.stack(pairs, axis=1))


def best_shares(signed: Floats, errors: Floats, gains: Floats) -> Floats:
    """Return the probability of each method to be the best of an exhaustive search without noise.

    Args:
        signed: Scores of the methods, higher is better, shape ``(methods,)``.
        errors: Draws of their errors over rows and seeds, shape ``(draws, methods)``.
        gains: Draws of their gains, of the same shape.
    """
    reached = signed + errors + gains
    best = reached == reached.max(axis=1, keepdims=True)
    shares: Floats = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def with_probabilities(
    results: Sequence[MethodResult], evidence: Evidence, metric: Metric, gains: Floats, seed: int = 0
) -> list[MethodResult]:
    """Return results with the probability of each to be the best of an exhaustive search without noise.

    Args:
        results: Results of the methods.
        evidence: Their scores with the covariance over rows and seeds, in the same order.
        metric: The task's metric.
        gains: Draws of their gains.
        seed: Seed of the draws of the errors.
    """
    shares = best_shares(metric.sign * evidence.means, errors_of_equals(evidence, seed), gains)
    return [replace(result, probability=float(share)) for result, share in zip(results, shares, strict=True)]
