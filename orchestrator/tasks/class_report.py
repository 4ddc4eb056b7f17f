"""How a model does on each class, which classes it takes for which, and which rows it is most wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.class_metrics import THRESHOLD, multi_hot, probabilities
from orchestrator.tasks.tagging import Entities
from orchestrator.tasks.tokens import integers

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassReport:
    """Counts per class on a split.

    Args:
        unit: What is counted: ``rows``, or ``entities``.
        names: The classes.
        true: How many have the class, shape ``(classes,)``.
        predicted: How many are predicted to have it.
        correct: How many have it and are predicted to.
        confusion: Rows by true and by predicted class, shape ``(classes, classes)``; ``None`` where a row may have
            several.
    """

    unit: str
    names: tuple[str, ...]
    true: Counts
    predicted: Counts
    correct: Counts
    confusion: Counts | None = None

    @property
    def precision(self) -> list[float | None]:
        """Share of the predictions of each class that are right; ``None`` for a class that is never predicted."""
        return _shares(self.correct, self.predicted)

    @property
    def recall(self) -> list[float | None]:
        """Share of each class that is predicted; ``None`` for a class that nothing has."""
        return _shares(self.correct, self.true)

    @property
    def f1(self) -> list[float | None]:
        """F1 of each class, 2 correct / (true + predicted); ``None`` where both are 0."""
        return _shares(2 * self.correct, self.true + self.predicted)


@dataclass(frozen=True)
class RowErrors:
    """How wrong a model is about each row.

    Args:
        name: What is measured, with its unit: ``1 - probability of the true label``.
        values: The errors, shape ``(rows,)``.
    """

    name: str
    values: NDArray[np.float64]


def one_label_report(true: Counts, predicted: Counts, names: Sequence[str]) -> ClassReport:
    """Return the counts of rows with one label each, given as indices into the labels."""
    size = len(names)
    confusion = np.bincount(true * size + predicted, minlength=size * size).reshape(size, size)
    return ClassReport(
        "rows", tuple(names), confusion.sum(axis=1), confusion.sum(axis=0), np.diagonal(confusion), confusion
    )


def several_labels_report(predictions: pa.Table, names: Sequence[str]) -> ClassReport:
    """Return the counts of rows that may have several labels."""
    predicted = probabilities(predictions) >= THRESHOLD
    true = multi_hot(predictions["labels"], len(names))
    counts = (true.sum(axis=0), predicted.sum(axis=0), (true & predicted).sum(axis=0))
    return ClassReport("rows", tuple(names), *counts)


def entity_report(true: Entities, predicted: Entities, kinds: Sequence[str]) -> ClassReport:
    """Return the counts of entities per kind; a predicted one is right if it has the same words and the same kind."""
    is_right = np.isin(predicted.first, predicted.matching(true))
    kinds_of = (true.kind, predicted.kind, predicted.kind[is_right])
    return ClassReport("entities", tuple(kinds), *(np.bincount(kind, minlength=len(kinds)) for kind in kinds_of))


def label_errors(predictions: pa.Table) -> RowErrors:
    """Return 1 minus the probability of each row's true label; of several, the largest error of a label's."""
    values = probabilities(predictions)
    if "labels" in predictions.column_names:
        true = multi_hot(predictions["labels"], values.shape[1])
        return RowErrors("largest error of a label's probability", np.abs(values - true).max(axis=1))
    return RowErrors(
        "1 - probability of the true label", 1 - values[np.arange(len(values)), integers(predictions, "label")]
    )


def _shares(part: Counts, whole: Counts) -> list[float | None]:
    return [int(some) / int(count) if count else None for some, count in zip(part, whole, strict=True)]
