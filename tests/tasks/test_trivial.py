"""Trivial predictors of every task type, scored longhand; and constant answers."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import f1_score, mean_absolute_error

from orchestrator.tasks import TASK_TYPES, TaskType
from orchestrator.tasks.class_metrics import most_frequent_labels
from orchestrator.tasks.trivial import AT_RANDOM

EVERY_ROW = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2] * 20)


def configured(name: str, metric: str, labels: tuple[str, ...] = (), **constants: float) -> TaskType:
    return TASK_TYPES[name].configured((metric,), 8, None, labels, constants=constants)


def scores(type_: TaskType, metric: str, splits: dict[str, pa.Table], predictions: pa.Table) -> dict[str, float]:
    """Return the score of each trivial predictor on all rows."""
    rows = np.arange(predictions.num_rows)[None]
    return {
        predictor.name: float(predictor.statistic(lambda table, draws: type_.score_many(metric, table, draws))(rows)[0])
        for predictor in type_.trivial_predictors(splits, predictions)
    }


def labelled(labels: Any, width: int = 3) -> tuple[dict[str, pa.Table], pa.Table]:
    """Return splits with these labels, and predictions that are all wrong."""
    split = pa.table({"row": range(len(labels)), "label": pa.array(labels, pa.int32())})
    wrong = np.eye(width)[(np.asarray(labels) + 1) % width]
    values = pa.FixedSizeListArray.from_arrays(pa.array(wrong.ravel()), width)
    return {"train": split, "test": split}, split.append_column("probabilities", values)


def test_trivial_classification_is_majority_and_proportions() -> None:
    type_ = configured("classification", "macro_f1", ("a", "b", "c"))
    found = scores(type_, "macro_f1", *labelled(EVERY_ROW))
    assert list(found) == ["always answering a", AT_RANDOM]
    dummy = DummyClassifier(strategy="most_frequent").fit(EVERY_ROW[:, None], EVERY_ROW)
    assert found["always answering a"] == pytest.approx(f1_score(EVERY_ROW, dummy.predict(EVERY_ROW), average="macro"))
    assert found[AT_RANDOM] == pytest.approx(1 / 3, abs=0.03), "each class has its share as F1"


def test_no_shares_of_answers_have_a_higher_macro_f1_than_proportions() -> None:
    true, random = np.array([0.6, 0.3, 0.1]), np.random.default_rng(0)
    answered = random.dirichlet(np.ones(3), 2000)
    assert (2 * true * answered / (true + answered)).mean(axis=1).max() < 1 / 3 + 1e-9


def test_trivial_classification_of_several_labels_is_the_best_constant_set() -> None:
    lists = [[0], [0, 1], [0, 1], [2], [0]]
    split = pa.table({"row": range(5), "labels": pa.array(lists, pa.list_(pa.int32()))})
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(15)), 3)
    type_ = configured("classification", "micro_f1", ("a", "b", "c"), threshold=0.5)
    predictions = split.append_column("probabilities", values)
    found = scores(type_, "micro_f1", {"train": split, "test": split}, predictions)
    assert found == {
        "always answering a, b": pytest.approx(2 * 6 / (10 + 7)),
        "always answering all 3 labels": pytest.approx(2 * 7 / (15 + 7)),
    }
    assert type_.constant_answer(predictions) == "no label"


def test_most_frequent_labels_have_the_best_micro_f1_of_all_sets() -> None:
    random = np.random.default_rng(2)
    has_label = random.random((50, 5)) < [0.8, 0.5, 0.3, 0.2, 0.05]

    def micro(chosen: list[int]) -> float:
        given = np.isin(np.arange(5), chosen)[None].repeat(50, axis=0)
        return float(f1_score(has_label, given, average="micro"))

    sets = [[label for label in range(5) if number >> label & 1] for number in range(1, 32)]
    assert micro(most_frequent_labels(has_label).tolist()) == pytest.approx(max(map(micro, sets)))


def test_trivial_regression_is_mean_and_median() -> None:
    targets = np.array([0.0, 0.0, 0.0, 4.0])
    split = pa.table({"row": range(4), "target": targets})
    type_ = configured("regression", "rmse", ("stars",), mean=1.0, std=1.7)
    predictions = split.append_column("predicted", pa.array(targets))
    found = scores(type_, "rmse", {"train": split}, predictions)
    assert found == {
        "always answering the training mean, 1": pytest.approx(np.sqrt(((targets - 1) ** 2).mean())),
        "always answering the training median, 0": pytest.approx(2.0),
    }
    assert scores(type_, "spearman", {"train": split}, predictions).popitem()[1] == 0
    assert mean_absolute_error(targets, np.zeros(4)) == 1
    assert type_.constant_answer(predictions) == ""
    assert type_.constant_answer(split.append_column("predicted", pa.array([2.5] * 4))) == "2.5"


def test_trivial_choice_is_the_most_frequent_choice() -> None:
    labels = pa.array([0, 1, 1, 1], pa.int32())
    rows: dict[str, Any] = {"row": range(4), "label": labels, "predicted": pa.array([0] * 4, pa.int32())}
    values = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0] * 4), 2)
    type_ = configured("choice", "accuracy", ("no", "yes"))
    train = {"train": pa.table({"label": labels})}
    predictions = pa.table({**rows, "probabilities": values})
    found = scores(type_, "accuracy", train, predictions)
    assert found["always answering yes"] == 0.75
    assert list(found) == ["always answering yes"], "drawn choices have a lower accuracy"
    drawn = scores(configured("choice", "macro_f1", ("no", "yes")), "macro_f1", train, predictions)
    assert list(drawn)[1] == "drawing choices in the training rows' proportions"
    assert type_.constant_answer(predictions) == "no"
    own = configured("choice", "accuracy")
    listed = pa.array([[0.5, 0.5]] * 3 + [[1.0]], pa.list_(pa.float64()))
    train = {"train": pa.table({"answer": labels})}
    predictions = pa.table({**rows, "probabilities": listed})
    assert scores(own, "accuracy", train, predictions) == {"always answering choice 2 of a row": 0.5}, (
        "the last has one"
    )


def test_trivial_tagging_is_the_most_frequent_tag() -> None:
    labels = ("B-PER", "O")
    tags = pa.array([[0, 1, 1], [1, 1]] * 20, pa.list_(pa.int32()))
    split = pa.table({"row": range(40), "tags": tags})
    type_ = configured("token-classification", "entity_f1", labels)
    zeros = pa.array([0] * 40)
    counts = ("words", "correct_words", "words_without_token", "entities", "predicted_entities", "correct_entities")
    predictions = split.append_column("predicted", tags)
    for name in counts:
        predictions = predictions.append_column(name, zeros)
    assert scores(type_, "entity_f1", {"train": split}, predictions)["always answering O"] == 0
    assert scores(type_, "token_accuracy", {"train": split}, predictions)["always answering O"] == pytest.approx(4 / 5)
    assert scores(type_, "entity_f1", {"train": split}, predictions).popitem()[1] > 0, "drawn tags hit some entities"
    assert type_.constant_answer(predictions) == ""


def test_trivial_seq2seq_copies_the_source() -> None:
    sources, targets = ["a b c", "d e f", "g"], ["a b c", "x", "x"]
    split = pa.table({"row": range(3), "source": sources, "target": targets})
    predictions = pa.table({"row": range(3), "generated": ["", "", ""], "reference": targets})
    type_ = configured("seq2seq", "exact_match")
    found = scores(type_, "exact_match", {"train": split, "test": split}, predictions)
    assert found == {
        "copying the source": pytest.approx(1 / 3),
        "always writing the most frequent training target": pytest.approx(2 / 3),
    }
    likelihoods = predictions.drop_columns(["generated"])
    assert type_.trivial_predictors({"train": split, "test": split}, likelihoods) == ()
    assert type_.constant_answer(predictions) == "''"


def test_trivial_retrieval_is_a_random_order() -> None:
    rows = 200
    split = pa.table({"row": range(rows), "positive": [f"text {n % 50}" for n in range(rows)]})
    columns = {"row": range(rows), "anchor": range(rows), "rank": pa.array([1] * rows, pa.int32())}
    predictions = pa.table({**columns, "similarity": [0.5] * rows})
    type_ = configured("embedding", "recall_at_1")
    (found,) = scores(type_, "recall_at_1", {"test": split}, predictions).values()
    assert found == pytest.approx(1 / 50, abs=0.015)
    assert type_.constant_answer(predictions) == ""
