"""Simulated sweeps on shuffled labels: no method can have learned anything, whatever it answers.

A model's answer to a row follows from the row's text, that is from normally distributed features that all methods see
alike, that a method sees alone, and that a retraining sees alone; the labels do not depend on them. A method's bias
towards a class moves how often it is answered. Some retrainings collapse, and answer one class only.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.selection.baseline import leads
from orchestrator.selection.evidence import MethodSample, gather
from orchestrator.selection.tied_set import ranks
from orchestrator.simulation.judged_sweeps import REPEATS, draw_shapes
from orchestrator.simulation.scored_sweeps import CLASS_SHARES, CLASSES, ROW_VARIANCE, Shape
from orchestrator.tasks import TASK_TYPES

COLLAPSED = 0.2
"""Probability that a retraining answers one class only."""
BIAS_SD = 0.7
"""Standard deviation of a method's bias towards each class, in standard deviations of its features."""


def named_share(sweeps: int, seed: int = 5) -> float:
    """Return the share of sweeps on shuffled labels that name a method better than the baselines.

    Args:
        sweeps: Number of sweeps, of every shape.
        seed: Seed of everything random.
    """
    random = np.random.default_rng(seed)
    shapes = zip(range(sweeps), draw_shapes(random), strict=False)
    return float(np.mean([names_a_method(shape, random, number) for number, shape in shapes]))


def names_a_method(shape: Shape, random: np.random.Generator, seed: int) -> bool:
    """Return whether a sweep on shuffled labels names a method: one that may be the best, and beats the baselines."""
    type_ = TASK_TYPES["classification"].configured((shape.metric,), 1, None, tuple(map(str, range(CLASSES))))
    train, test = (_labels(random, shape.rows) for _ in range(2))
    score = partial(type_.score_many, shape.metric)
    by_method = [[_table(test, answers) for answers in retrainings] for retrainings in _answers(shape, random)]
    samples = [
        MethodSample(
            tuple(type_.score(shape.metric, table) for table in tables), tuple(partial(score, t) for t in tables)
        )
        for tables in by_method
    ]
    for predictor in type_.trivial_predictors({"train": train}, by_method[0][0]):
        statistic = predictor.statistic(score)
        all_rows = np.arange(shape.rows)[None]
        samples.append(MethodSample((float(statistic(all_rows)[0]),), (statistic,), random=False))
    evidence, methods, metric = (
        gather(samples, shape.rows, seed=seed, repeats=REPEATS),
        range(shape.methods),
        Metric(name=shape.metric),
    )
    best = shape.methods + int(evidence.means[shape.methods :].argmax())
    tied = [rank.tied for rank in ranks(evidence.of(methods), metric, seed=seed)]
    gains = leads(evidence, metric, methods, best, seed=seed)
    return any(may_be_best and low > 0 for may_be_best, (_, low) in zip(tied, gains, strict=True))


def _labels(random: np.random.Generator, rows: int) -> pa.Table:
    labels = random.choice(CLASSES, size=rows, p=CLASS_SHARES)
    return pa.table({"row": range(rows), "label": pa.array(labels, pa.int32())})


def _answers(shape: Shape, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the answers of every retraining, of shape ``(methods, seeds, rows)``."""
    size = (shape.methods, shape.seeds, shape.rows, CLASSES)
    weights = np.sqrt([ROW_VARIANCE / 2, ROW_VARIANCE / 2, 1 - ROW_VARIANCE])
    features = weights[0] * random.standard_normal(size[2:]) + weights[1] * random.standard_normal(
        (size[0], 1, *size[2:])
    )
    features = features + weights[2] * random.standard_normal(size)
    biases = np.log(CLASS_SHARES) / 2 + BIAS_SD * random.standard_normal((size[0], 1, 1, CLASSES))
    answers: NDArray[np.int64] = (features + biases).argmax(axis=-1)
    collapsed = random.random(size[:2]) < COLLAPSED
    answers[collapsed] = random.integers(CLASSES, size=int(collapsed.sum()))[:, None]
    return answers


def _table(test: pa.Table, answers: NDArray[np.int64]) -> pa.Table:
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(CLASSES)[answers].ravel()), CLASSES)
    return test.append_column("probabilities", values)
