"""The classes of a classification task: their names, their integers, and whether there are enough rows of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.units import counted
from orchestrator.tasks.columns import ordered
from orchestrator.tasks.faults import MAX_SHOWN, Faults

NOT_IN_TRAINING = "is not among the training rows"
MIN_STRATUM = 10
"""Rows that a stratum must have to be spread over the splits."""


def encode(
    tables: Mapping[str, pa.Table], files: Mapping[str, str], column: str, key: str, drop: bool
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Replace labels by indices into the names of the classes, which are the labels of the training rows.

    Args:
        tables: Tables by split, ``train`` among them.
        files: File names by split.
        column: Name of the label column in the files.
        key: Key path of the task, for errors.
        drop: Whether rows with a label that the training rows lack are dropped.

    Raises:
        InputError: If there are such rows and they are not to be dropped.
    """
    labels = ordered(tables["train"]["label"])
    encoded = {name: _encode_table(table, labels, files[name], column, key, drop) for name, table in tables.items()}
    return encoded, labels


def _encode_table(table: pa.Table, labels: tuple[str, ...], file: str, column: str, key: str, drop: bool) -> pa.Table:
    codes = pc.index_in(table["label"].combine_chunks(), pa.array(labels, pa.string()))
    faults = Faults(file, table["row"].to_numpy())
    for row in table.filter(codes.is_null()).to_pylist() if codes.null_count else []:
        hint = did_you_mean(row["label"], labels, "labels")
        faults.entries.append((row["row"], column, f"label {row['label']!r} {NOT_IN_TRAINING}; {hint}"))
    if not drop:
        faults.raise_if_any(key)
    position = table.column_names.index("label")
    table = table.set_column(position, "label", codes)
    return table.filter(codes.is_valid()) if codes.null_count else table


def require_classes(table: pa.Table, labels: tuple[str, ...], file: str, key: str, min_rows: int = 3) -> None:
    """Check that there are two classes or more, with enough rows of each.

    Args:
        table: Table with labels as integers.
        labels: Names of the classes.
        file: Name of the file that the rows come from.
        key: Key path of the task, for errors.
        min_rows: Rows that every class must have.

    Raises:
        InputError: If there is a single class, or a class with too few rows.
    """
    if len(labels) == 1:
        rows = "the only row has" if table.num_rows == 1 else f"all {table.num_rows:,} rows have"
        raise _problem(file, key, [f"{rows} the label {labels[0]!r}; two classes are needed"])
    if table.num_rows < min_rows * len(labels):
        raise _problem(file, key, [f"{table.num_rows:,} rows are too few for {len(labels):,} classes"])
    counts = np.bincount(table["label"].to_numpy(), minlength=len(labels))
    messages = [
        f"class {labels[i]!r} has {counted(counts[i], 'row')}; {min_rows} are needed, or leave it out with {key}.where"
        for i in np.flatnonzero(counts < min_rows)
    ]
    if messages:
        more = len(messages) - MAX_SHOWN
        rest = [f"{more:,} more classes have too few rows"] if more > 0 else []
        raise _problem(file, key, [*messages[:MAX_SHOWN], *rest])


def encode_lists(
    tables: Mapping[str, pa.Table], files: Mapping[str, str], column: str, key: str, drop: bool
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Replace lists of labels by lists of indices into the names of the training rows' labels.

    A column ``stratum`` (int32) is added: the label of each row that most rows have. Splits are drawn so that each has
    its share of all strata.

    Args:
        tables: Tables by split, ``train`` among them, with lists of texts in ``labels``.
        files: File names by split.
        column: Name of the label column in the files.
        key: Key path of the task, for errors.
        drop: Whether rows with a label that the training rows lack are dropped.

    Raises:
        InputError: If there are such rows and they are not to be dropped, or no training row has a label.
    """
    names = ordered(pa.chunked_array([tables["train"]["labels"].combine_chunks().flatten()]))
    if not names:
        message = f"none of {tables['train'].num_rows:,} rows has a label"
        raise InputError(files["train"], [Problem(f"{key}.labels", message)])
    encoded = {name: _encode_lists(table, names, files[name], column, key, drop) for name, table in tables.items()}
    train = encoded["train"]["labels"].combine_chunks().flatten().to_numpy()
    frequency = np.bincount(train, minlength=len(names))
    return {name: table.append_column("stratum", _strata(table, frequency)) for name, table in encoded.items()}, names


def _encode_lists(table: pa.Table, names: tuple[str, ...], file: str, column: str, key: str, drop: bool) -> pa.Table:
    lists = table["labels"].combine_chunks()
    sizes = lists.value_lengths().to_numpy()
    codes = pc.index_in(lists.flatten(), pa.array(names, pa.string()))
    unknown_rows = np.unique(np.repeat(np.arange(len(lists)), sizes)[codes.is_null().to_numpy(zero_copy_only=False)])
    faults = Faults(file, table["row"].to_numpy())
    for row in unknown_rows.tolist():
        label = next(label for label in lists[row].as_py() if label not in names)
        hint = did_you_mean(label, names, "labels")
        faults.entries.append((table["row"][row].as_py(), column, f"label {label!r} {NOT_IN_TRAINING}; {hint}"))
    if not drop:
        faults.raise_if_any(key)
    offsets = np.concatenate([[0], sizes.cumsum()]).astype(np.int32)
    position = table.column_names.index("labels")
    table = table.set_column(position, "labels", pa.ListArray.from_arrays(pa.array(offsets), codes))
    return table.filter(pa.array(~np.isin(np.arange(len(lists)), unknown_rows))) if len(unknown_rows) else table


def _strata(table: pa.Table, frequency: NDArray[np.int64]) -> pa.Array:
    """Return the most frequent of each row's labels; strata too small to be in every split join the largest."""
    none = len(frequency)
    strata = [max(labels, key=frequency.__getitem__, default=none) for labels in table["labels"].to_pylist()]
    sizes = np.bincount(strata, minlength=none + 1)
    joined = np.where(sizes < MIN_STRATUM, sizes.argmax(), np.arange(none + 1))
    return pa.array(joined[np.array(strata, np.int64)].astype(np.int32))


def require_training_rows(train: pa.Table, labels: tuple[str, ...], file: str, key: str) -> None:
    """Check that every label is among the training rows; a draw can leave a small class out.

    Raises:
        InputError: If one is not.
    """
    name = "label" if "label" in train.column_names else "labels"
    codes = train["label"] if name == "label" else train["labels"].combine_chunks().flatten()
    present = set(pc.unique(codes).to_pylist())
    if missing := [label for code, label in enumerate(labels) if code not in present]:
        noun = "class" if name == "label" else "label"
        message = f"{noun} {missing[0]!r} has too few rows to be in every split"
        raise InputError(file, [Problem(f"{key}.{name}", message)])


def majority_share(splits: Mapping[str, pa.Table]) -> float:
    """Return the share of the test rows that have the most frequent training label."""
    most_frequent = np.bincount(splits["train"]["label"].to_numpy()).argmax()
    return float((splits["test"]["label"].to_numpy() == most_frequent).mean())


def with_probabilities_by_name(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer whose first column is what was chosen, and whose others, ``probability_NAME``, are in one."""
    (key, chosen), *values = answer.items()
    return {key: chosen, "probabilities": {name.removeprefix("probability_"): value for name, value in values}}


def _problem(file: str, key: str, messages: list[str]) -> InputError:
    return InputError(file, [Problem(f"{key}.label", message) for message in messages])
