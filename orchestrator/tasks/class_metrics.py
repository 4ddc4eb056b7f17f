"""Metrics of predicted labels, computed on many samples of rows at once.

Predictions with one label per row hold ``label`` and ``probabilities``, those with several ``labels`` (lists of label
indices) and ``probabilities``. A sample's classes may be fewer than the task's; each function says what that does.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks.tokens import integers

THRESHOLD = 0.5
"""The probability from which on a row gets a label, where it may have several."""
Scores = NDArray[np.float64]


def probabilities(predictions: pa.Table) -> NDArray[np.float64]:
    """Return the probabilities of shape ``(rows, labels)``."""
    labels = predictions.schema.field("probabilities").type.list_size
    flat: NDArray[np.float64] = predictions["probabilities"].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, labels)


def predicted_labels(predictions: pa.Table) -> NDArray[np.int64]:
    """Return the most probable label of each row, as an index into the task's labels."""
    labels: NDArray[np.int64] = probabilities(predictions).argmax(axis=1)
    return labels


def multi_hot(lists: pa.ChunkedArray | pa.Array, labels: int) -> NDArray[np.bool_]:
    """Return which labels each row has, from lists of label indices; shape ``(rows, labels)``."""
    array = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    counts = array.value_lengths().to_numpy()
    hot = np.zeros((len(array), labels), bool)
    hot[np.repeat(np.arange(len(array)), counts), array.flatten().to_numpy()] = True
    return hot


def most_frequent_labels(has_label: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the labels that, given to every row, have the best micro-F1: as many of the most frequent as that takes.

    Args:
        has_label: Which labels each row has, of shape ``(rows, labels)``.
    """
    counts = has_label.sum(axis=0)
    order: NDArray[np.int64] = np.argsort(-counts, kind="stable")
    sizes = np.arange(1, len(order) + 1)
    scores = 2 * counts[order].cumsum() / (sizes * len(has_label) + counts.sum())
    return order[: int(scores.argmax()) + 1]


def macro_f1(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the mean over classes of 2 tp / (2 tp + fp + fn), 0 where a class is neither true nor predicted."""
    if "labels" in predictions.column_names:
        hits, occurrences = _label_counts(predictions, draws)
    else:
        confusion = _confusion(predictions, draws)
        hits, occurrences = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=1) + confusion.sum(axis=2)
    scores: Scores = (2 * hits / np.maximum(occurrences, 1)).mean(axis=1)
    return scores


def micro_f1(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return 2 tp / (2 tp + fp + fn) over all pairs of row and label, 0 where no label is true or predicted."""
    hits, occurrences = (counts.sum(axis=1) for counts in _label_counts(predictions, draws))
    scores: Scores = 2 * hits / np.maximum(occurrences, 1)
    return scores


def accuracy(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the share of rows whose most probable label is the true one."""
    is_right = integers(predictions, "label") == predicted_labels(predictions)
    scores: Scores = is_right[draws].mean(axis=1)
    return scores


def matthews_correlation(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the correlation of true and predicted classes (Gorodkin, 2004), 0 where either has one value only."""
    confusion = _confusion(predictions, draws).astype(np.float64)
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    rows, hits = true.sum(axis=1), np.trace(confusion, axis1=1, axis2=2)
    covariance = hits * rows - (true * predicted).sum(axis=1)
    spread = (rows**2 - (true**2).sum(axis=1)) * (rows**2 - (predicted**2).sum(axis=1))
    scores: Scores = np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)
    return scores


def balanced_accuracy(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the mean recall over the classes that are in the sample."""
    confusion = _confusion(predictions, draws)
    true = confusion.sum(axis=2)
    recalls = np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(true, 1)
    scores: Scores = recalls.sum(axis=1) / (true > 0).sum(axis=1)
    return scores


def roc_auc(predictions: pa.Table, draws: NDArray[np.int64]) -> Scores:
    """Return the mean over classes of the area under the curve of one class against the rest.

    It is the probability that a row of the class has a higher probability of it than another row, ties counting half.
    A class that no row of the sample has, or every row, is left out; a sample of a single class scores 0.5.
    """
    labels, values = integers(predictions, "label"), probabilities(predictions)
    times = _times_drawn(draws, len(labels))
    areas = np.stack([_area(values[:, k], labels == k, times) for k in range(values.shape[1])], axis=1)
    has_area = ~np.isnan(areas)
    count = has_area.sum(axis=1)
    scores: Scores = np.where(count > 0, np.where(has_area, areas, 0).sum(axis=1) / np.maximum(count, 1), 0.5)
    return scores


ONE_LABEL = (
    Metric(name="macro_f1", label="macro-F1", statistic=macro_f1),
    Metric(name="accuracy", label="accuracy", statistic=accuracy),
    Metric(name="mcc", bounds=(-1.0, 1.0), label="Matthews correlation", statistic=matthews_correlation),
    Metric(name="balanced_accuracy", label="balanced accuracy", statistic=balanced_accuracy),
    Metric(name="roc_auc", label="ROC AUC", statistic=roc_auc),
)
SEVERAL_LABELS = (Metric(name="micro_f1", label="micro-F1", statistic=micro_f1), ONE_LABEL[0])


def _confusion(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each true class (first) was taken for each class, of shape ``(samples, classes, classes)``."""
    labels, predicted = integers(predictions, "label").astype(np.int64), predicted_labels(predictions)
    classes = predictions.schema.field("probabilities").type.list_size
    cells = (labels * classes + predicted)[draws] + np.arange(len(draws))[:, None] * classes**2
    return np.bincount(cells.ravel(), minlength=len(draws) * classes**2).reshape(-1, classes, classes)


def _times_drawn(draws: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
    """Return how often each row is in each sample, of shape ``(samples, rows)``."""
    cells = draws + np.arange(len(draws))[:, None] * rows
    return np.bincount(cells.ravel(), minlength=len(draws) * rows).reshape(-1, rows).astype(np.float64)


def _label_counts(predictions: pa.Table, draws: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return true positives, and how often a label is true plus how often it is predicted; ``(samples, labels)``."""
    values = probabilities(predictions)
    predicted, true = values >= THRESHOLD, multi_hot(predictions["labels"], values.shape[1])
    times = _times_drawn(draws, len(values))
    return times @ (true & predicted), times @ (true.astype(np.int64) + predicted)


def _area(values: NDArray[np.float64], is_class: NDArray[np.bool_], times: NDArray[np.float64]) -> Scores:
    """Return one class's area under the curve for each sample; NaN without rows of the class, or without others."""
    distinct, ranks = np.unique(values, return_inverse=True)
    starts = np.searchsorted(ranks[order := np.argsort(ranks, kind="stable")], np.arange(len(distinct)))
    positive, negative = (
        np.add.reduceat((times * members)[:, order], starts, axis=1) for members in (is_class, ~is_class)
    )
    below = negative.cumsum(axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    areas: Scores = np.where(pairs > 0, (positive * below).sum(axis=1) / np.maximum(pairs, 1), np.nan)
    return areas
