"""Metrics of labels against scikit-learn, on samples in which classes are absent and probabilities are tied."""

import warnings
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from orchestrator.tasks.class_metrics import ONE_LABEL, SEVERAL_LABELS
from orchestrator.tasks.classification import Classification

TYPE = Classification()
CLASSES = 4
Labels = NDArray[np.int64]


def fixed_size(values: NDArray[np.float64]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


@pytest.fixture(params=[1, 2, 5, 60])
def drawn(request: pytest.FixtureRequest) -> tuple[pa.Table, NDArray[np.int64]]:
    """Predictions of 60 rows whose rounded probabilities repeat, and samples of a few of them."""
    random = np.random.default_rng(request.param)
    values = random.dirichlet(np.ones(CLASSES), 60).round(1)
    labels = pa.array(random.integers(0, CLASSES - 1, 60), pa.int32())
    table = pa.table({"row": range(60), "label": labels, "probabilities": fixed_size(values)})
    return table, random.integers(60, size=(40, request.param))


def area(true: Labels, values: NDArray[np.float64]) -> float:
    areas = [
        sklearn.roc_auc_score(true == k, values[:, k]) for k in range(CLASSES) if 0 < (true == k).sum() < len(true)
    ]
    return float(np.mean(areas)) if areas else 0.5


REFERENCE: dict[str, Callable[[Labels, Labels, NDArray[np.float64]], float]] = {
    "macro_f1": lambda true, guess, _: sklearn.f1_score(
        true, guess, average="macro", labels=range(CLASSES), zero_division=0
    ),
    "accuracy": lambda true, guess, _: sklearn.accuracy_score(true, guess),
    "mcc": lambda true, guess, _: sklearn.matthews_corrcoef(true, guess),
    "balanced_accuracy": lambda true, guess, _: sklearn.balanced_accuracy_score(true, guess),
    "roc_auc": lambda true, _, values: area(true, values),
}


@pytest.mark.parametrize("name", [metric.name for metric in ONE_LABEL])
def test_class_metrics_equal_scikit_learns_on_every_sample(
    drawn: tuple[pa.Table, NDArray[np.int64]], name: str
) -> None:
    table, draws = drawn
    scores = TYPE.score_many(name, table, draws)
    labels, values = table["label"].to_numpy(), np.array(table["probabilities"].to_pylist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about absent classes
        expected = [REFERENCE[name](labels[draw], values[draw].argmax(axis=1), values[draw]) for draw in draws]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


def test_roc_auc_of_two_classes_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    values = random.random(300)
    table = pa.table({
        "label": pa.array(random.integers(0, 2, 300), pa.int32()),
        "probabilities": fixed_size(np.stack([1 - values, values], axis=1)),
    })  # fmt: skip
    assert TYPE.score("roc_auc", table) == pytest.approx(sklearn.roc_auc_score(table["label"].to_numpy(), values))


@pytest.mark.parametrize("name", [metric.name for metric in SEVERAL_LABELS])
@pytest.mark.parametrize("rows", [1, 3, 60])
def test_metrics_of_several_labels_equal_scikit_learns(name: str, rows: int) -> None:
    random = np.random.default_rng(rows)
    hot = random.random((60, CLASSES)) < [0.5, 0.2, 0.05, 0.0]
    hot[0] = False
    values = random.random((60, CLASSES))
    values[7, 1] = 0.5  # the threshold itself is a label
    lists = pa.array([np.flatnonzero(row) for row in hot], pa.list_(pa.int32()))
    table = pa.table({"row": range(60), "labels": lists, "probabilities": fixed_size(values)})
    draws = random.integers(60, size=(40, rows))
    average = name.removesuffix("_f1")
    expected = [sklearn.f1_score(hot[draw], values[draw] >= 0.5, average=average, zero_division=0) for draw in draws]
    np.testing.assert_allclose(TYPE.score_many(name, table, draws), expected, rtol=0, atol=1e-12)
