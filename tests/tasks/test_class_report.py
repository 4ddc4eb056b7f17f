"""Scores per class against scikit-learn and seqeval's rules, and errors of rows by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.tokens import token_column

LABELS = ("bad", "fine", "good", "great")


def filled(values: list[float | None]) -> list[float]:
    return [0.0 if value is None else value for value in values]


def one_label() -> tuple[Any, pa.Table, NDArray[np.float64]]:
    draw = np.random.default_rng(0)
    values = draw.dirichlet(np.ones(4), 200)
    values[:, 3] = 0  # "great" is never predicted
    label = draw.integers(0, 4, 200).astype(np.int32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4)
    table = pa.table({"row": np.arange(200), "label": label, "probabilities": column})
    return TASK_TYPES["classification"].configured(("macro_f1",), 8, None, LABELS), table, values


def test_class_report_equals_scikit_learns() -> None:
    type_, table, values = one_label()
    report, true = type_.class_report(table), table["label"].to_numpy()
    predicted = values.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=range(4), zero_division=0.0
    )
    assert filled(report.precision) == pytest.approx(precision)
    assert filled(report.recall) == pytest.approx(recall)
    assert filled(report.f1) == pytest.approx(f1)
    assert report.true.tolist() == support.tolist()
    assert report.confusion.tolist() == confusion_matrix(true, predicted, labels=range(4)).tolist()
    assert report.precision[3] is None, "nothing was predicted to be of that class"
    assert np.mean(filled(report.f1)) == pytest.approx(type_.score("macro_f1", table))


def test_row_errors_of_one_label_are_its_missing_probability() -> None:
    type_, table, values = one_label()
    errors = type_.row_errors(table)
    assert errors.values == pytest.approx(1 - values[np.arange(200), table["label"].to_numpy()])


def test_class_report_of_several_labels_counts_each_label() -> None:
    values = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.4]])
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    labels = pa.array([[0], [0, 1], [1]], pa.list_(pa.int32()))
    type_ = TASK_TYPES["classification"].configured(("micro_f1",), 8, None, ("a", "b"), None, {"threshold": 0.5})
    table = pa.table({"row": [1, 2, 3], "labels": labels, "probabilities": column})
    report = type_.class_report(table)
    assert report is not None
    assert (report.true.tolist(), report.predicted.tolist(), report.correct.tolist()) == ([2, 2], [2, 1], [2, 1])
    assert report.confusion is None
    errors = type_.row_errors(table)
    assert errors is not None
    assert errors.values == pytest.approx([0.2, 0.4, 0.6])


def test_class_report_of_tags_counts_whole_entities() -> None:
    tags = ("O", "B-per", "I-per", "B-org", "I-org")
    type_ = TASK_TYPES["token-classification"].configured(("entity_f1",), 8, None, tags)
    true = [np.array([1, 2, 0, 3]), np.array([3, 4, 0])]
    predicted = [np.array([1, 2, 0, 3]), np.array([3, 0, 1])]  # the second row's first entity is cut short
    table = pa.table({"row": [1, 2], "tags": token_column(true), "predicted": token_column(predicted)})
    table = table.append_column("words", pa.array([4, 3])).append_column("correct_words", pa.array([4, 1]))
    report = type_.class_report(table)
    assert report is not None
    assert report.names == ("org", "per")
    assert (report.true.tolist(), report.predicted.tolist(), report.correct.tolist()) == ([2, 1], [2, 2], [1, 1])
    assert report.f1 == [pytest.approx(0.5), pytest.approx(2 / 3)]
    errors = type_.row_errors(table)
    assert errors is not None
    assert errors.values.tolist() == [0, 2]


def test_types_without_classes_have_no_class_report() -> None:
    assert TASK_TYPES["regression"].class_report(pa.table({"row": [1]})) is None
    predictions = pa.table({"row": [1, 2], "target": [1.0, 2.0], "predicted": [1.5, -1.0]})
    errors = TASK_TYPES["regression"].row_errors(predictions)
    assert errors is not None
    assert errors.values.tolist() == [0.5, 3.0]
