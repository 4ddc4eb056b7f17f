"""Simulation of sweeps whose true scores are known: the predictions of finalists on test rows.

Every row has normally distributed difficulties: one that all methods share, one for each method, and one for each
retraining. A model's prediction is correct if the weighted sum of the three is below a threshold that follows from its
skill. Hence methods agree on most rows without being equal, and retrainings of one method agree on more. A retraining's
skill is its method's plus a normally distributed effect of its seed. A wrong prediction is one of the other classes,
with probabilities in proportion to their frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from orchestrator.selection.evidence import MethodSample
from orchestrator.selection.intervals import Statistic

MetricName = Literal["accuracy", "macro_f1"]
ROW_VARIANCE, METHOD_VARIANCE = 0.7, 0.2
"""Parts of a difficulty's variance, of 1, that all methods and that a method's retrainings share."""
ACCURACY_OFFSETS = np.array([0.08, -0.05, -0.15])
CLASS_SHARES = np.array([0.6, 0.25, 0.15])
CLASSES = len(CLASS_SHARES)
SAME_ERROR_PROBABILITY = 0.7
"""Probability that a model's wrong prediction follows the random number that all models share on a row."""


@dataclass(frozen=True)
class Shape:
    """The shape of a sweep.

    Args:
        methods: number of finalists.
        seeds: number of retrainings of each.
        rows: rows of the test split.
        metric: ``macro_f1`` over three unequal classes, or ``accuracy``.
        seed_sd: standard deviation of a retraining's skill, in accuracy.
        skills: true accuracy of each method; all equal if left out.
    """

    methods: int
    seeds: int
    rows: int
    metric: MetricName
    seed_sd: float
    skills: tuple[float, ...] = ()

    def skill(self) -> NDArray[np.float64]:
        """Return the true accuracies, of shape ``(methods,)``."""
        return np.asarray(self.skills or (0.8,) * self.methods)

    def spaced(self, gap: float, *, ladder: bool) -> Shape:
        """Return this shape with all methods ``gap`` below a best one or, on a ladder, each below the one before."""
        steps = np.arange(self.methods) if ladder else np.minimum(np.arange(self.methods), 1)
        return replace(self, skills=tuple(float(0.8 - gap * step) for step in steps))


def true_scores(shape: Shape) -> NDArray[np.float64]:
    """Return the score of each method over infinitely many rows and seeds, of shape ``(methods,)``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    skills = shape.skill()[:, None] + shape.seed_sd * nodes
    scores = np.vectorize(partial(_score_of_skill, shape.metric))(skills)
    means: NDArray[np.float64] = scores @ weights / weights.sum()
    return means


def _score_of_skill(metric: MetricName, skill: float) -> float:
    accuracies = _accuracy_by_class(np.array(skill))
    if metric == "accuracy":
        return float((CLASS_SHARES * accuracies).sum())
    confusion = (CLASS_SHARES * (1 - accuracies))[:, None] * _wrong_shares()
    confusion[np.diag_indices(CLASSES)] = CLASS_SHARES * accuracies
    return float(np.mean(2 * np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1))))


def _accuracy_by_class(skill: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the accuracy within each class, whose weighted mean is the skill; shape ``(..., classes)``."""
    offsets = ACCURACY_OFFSETS - (CLASS_SHARES * ACCURACY_OFFSETS).sum()
    accuracies: NDArray[np.float64] = np.clip(skill[..., None] + offsets, 0.01, 0.99)
    return accuracies


def _wrong_shares() -> NDArray[np.float64]:
    """Return the shares of wrong predictions by class, of shape ``(true classes, classes)``."""
    wrong = np.where(np.eye(CLASSES, dtype=bool), 0.0, CLASS_SHARES)
    shares: NDArray[np.float64] = wrong / wrong.sum(axis=1, keepdims=True)
    return shares


@dataclass(frozen=True)
class ScoredSweep:
    """The predictions of a sweep's finalists.

    Args:
        metric: metric of the sweep.
        labels: true classes, of shape ``(rows,)``.
        predictions: predicted classes, of shape ``(methods, seeds, rows)``.
    """

    metric: MetricName
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]

    def samples(self) -> list[MethodSample]:
        """Return the scores of every method in the form that the selection takes."""
        all_rows = np.arange(len(self.labels))[None]
        samples = []
        for method_predictions in self.predictions:
            statistics: list[Statistic] = [
                partial(_score, self.metric, self.labels, predictions) for predictions in method_predictions
            ]
            samples.append(
                MethodSample(tuple(float(statistic(all_rows)[0]) for statistic in statistics), tuple(statistics))
            )
        return samples

    def shuffled(self, random: np.random.Generator) -> ScoredSweep:
        """Return the sweep with the methods shuffled on every row and retraining, so that none is better."""
        return replace(self, predictions=random.permuted(self.predictions, axis=0))


def simulate(shape: Shape, random: np.random.Generator) -> ScoredSweep:
    """Draw the true classes and the predictions of a sweep."""
    size = (shape.methods, shape.seeds, shape.rows)
    labels = random.choice(CLASSES, size=shape.rows, p=CLASS_SHARES)
    seed_effects = shape.seed_sd * random.standard_normal(size[:2])
    accuracies = _accuracy_by_class(shape.skill()[:, None] + seed_effects)
    weights = np.sqrt([ROW_VARIANCE, METHOD_VARIANCE, 1 - ROW_VARIANCE - METHOD_VARIANCE])
    difficulty = weights[0] * random.standard_normal(shape.rows)
    difficulty = difficulty + weights[1] * random.standard_normal((shape.methods, 1, shape.rows))
    difficulty = difficulty + weights[2] * random.standard_normal(size)
    correct = difficulty < ndtri(accuracies)[:, :, labels]
    quantiles = np.where(random.random(size) < SAME_ERROR_PROBABILITY, random.random(shape.rows), random.random(size))
    errors = (quantiles[..., None] > _wrong_shares().cumsum(axis=1)[labels]).sum(axis=-1)
    return ScoredSweep(shape.metric, labels, np.where(correct, labels, np.minimum(errors, CLASSES - 1)))


def _score(
    metric: MetricName, labels: NDArray[np.int64], predictions: NDArray[np.int64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the score of each draw of rows.

    Args:
        metric: name of the metric.
        labels: true classes, of shape ``(rows,)``.
        predictions: predicted classes, of shape ``(rows,)``.
        draws: indices of rows, of shape ``(draws, rows)``.
    """
    if metric == "accuracy":
        accuracy: NDArray[np.float64] = (labels == predictions)[draws].mean(axis=1)
        return accuracy
    cells = (labels * CLASSES + predictions).astype(np.int32)[draws] + (np.arange(len(draws)) * CLASSES**2)[:, None]
    confusion = np.bincount(cells.ravel(), minlength=len(draws) * CLASSES**2).reshape(-1, CLASSES, CLASSES)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    totals = confusion.sum(axis=1) + confusion.sum(axis=2)
    scores: NDArray[np.float64] = (2 * hits / np.maximum(totals, 1)).mean(axis=1)
    return scores
