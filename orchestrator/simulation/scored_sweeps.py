"""Draw sweeps whose truth is known: the answers of finalists on test rows, right and wrong as those of real models.

Every row has a difficulty that all methods share, one for each method, and one for each retraining, all normal; a
model is right where their weighted sum stays below a threshold that its true skill sets. So methods agree on most rows
without being equal, and retrainings of one method agree more. A retraining's skill is its method's plus a normal seed
effect. What is wrong is one of the other classes, by their shares.
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
SHARED, OWN = 0.7, 0.2
HARDER = np.array([0.08, -0.05, -0.15])
SHARES = np.array([0.6, 0.25, 0.15])
CLASSES = len(SHARES)


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
        """Return this shape with a best method, and the rest ``gap`` below it or, on a ladder, each below the last."""
        steps = np.arange(self.methods) if ladder else np.minimum(np.arange(self.methods), 1)
        return replace(self, skills=tuple(float(0.8 - gap * step) for step in steps))


def truth(shape: Shape) -> NDArray[np.float64]:
    """Return the score of each method over infinitely many rows and seeds, of shape ``(methods,)``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    skills = shape.skill()[:, None] + shape.seed_sd * nodes
    scores = np.vectorize(partial(_score_of_skill, shape.metric))(skills)
    exact: NDArray[np.float64] = scores @ weights / weights.sum()
    return exact


def _score_of_skill(metric: MetricName, skill: float) -> float:
    right = _by_class(np.array(skill))
    if metric == "accuracy":
        return float((SHARES * right).sum())
    confusion = (SHARES * (1 - right))[:, None] * _wrong_shares()
    confusion[np.diag_indices(CLASSES)] = SHARES * right
    return float(np.mean(2 * np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1))))


def _by_class(skill: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the accuracy within each class, whose weighted mean is the skill; shape ``(..., classes)``."""
    offsets = HARDER - (SHARES * HARDER).sum()
    accuracies: NDArray[np.float64] = np.clip(skill[..., None] + offsets, 0.01, 0.99)
    return accuracies


def _wrong_shares() -> NDArray[np.float64]:
    """Return the shares of wrong answers by class, one row per true class."""
    wrong = np.where(np.eye(CLASSES, dtype=bool), 0.0, SHARES)
    shares: NDArray[np.float64] = wrong / wrong.sum(axis=1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Played:
    """The answers of a sweep's finalists: true classes ``(rows,)``, and answers ``(methods, seeds, rows)``."""

    metric: MetricName
    true: NDArray[np.int64]
    answers: NDArray[np.int64]

    def samples(self) -> list[MethodSample]:
        """Return the answers in the form that the selection takes."""
        all_rows = np.arange(len(self.true))[None]
        samples = []
        for method in self.answers:
            statistics: list[Statistic] = [partial(_score, self.metric, self.true, answers) for answers in method]
            samples.append(
                MethodSample(tuple(float(statistic(all_rows)[0]) for statistic in statistics), tuple(statistics))
            )
        return samples

    def shuffled(self, random: np.random.Generator) -> Played:
        """Return the sweep with the methods' names shuffled on every row and retraining, so that none is better."""
        return replace(self, answers=random.permuted(self.answers, axis=0))


def play(shape: Shape, random: np.random.Generator) -> Played:
    """Draw a sweep."""
    size = (shape.methods, shape.seeds, shape.rows)
    true = random.choice(CLASSES, size=shape.rows, p=SHARES)
    effects = shape.seed_sd * random.standard_normal(size[:2])
    right = _by_class(shape.skill()[:, None] + effects)
    weights = np.sqrt([SHARED, OWN, 1 - SHARED - OWN])
    hard = weights[0] * random.standard_normal(shape.rows)
    hard = hard + weights[1] * random.standard_normal((shape.methods, 1, shape.rows))
    hard = hard + weights[2] * random.standard_normal(size)
    correct = hard < ndtri(right)[:, :, true]
    # Models take the same wrong turn more often than not.
    turn = np.where(random.random(size) < 0.7, random.random(shape.rows), random.random(size))
    wrong = (turn[..., None] > _wrong_shares().cumsum(axis=1)[true]).sum(axis=-1)
    return Played(shape.metric, true, np.where(correct, true, np.minimum(wrong, CLASSES - 1)))


def _score(
    metric: MetricName, true: NDArray[np.int64], answers: NDArray[np.int64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    if metric == "accuracy":
        accuracy: NDArray[np.float64] = (true == answers)[draws].mean(axis=1)
        return accuracy
    cells = (true * CLASSES + answers).astype(np.int32)[draws] + (np.arange(len(draws)) * CLASSES**2)[:, None]
    confusion = np.bincount(cells.ravel(), minlength=len(draws) * CLASSES**2).reshape(-1, CLASSES, CLASSES)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    marked = confusion.sum(axis=1) + confusion.sum(axis=2)
    scores: NDArray[np.float64] = (2 * hits / np.maximum(marked, 1)).mean(axis=1)
    return scores
