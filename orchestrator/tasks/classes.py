"""The classes of a classification task: their names, their integers, and whether there are enough rows of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.tasks.columns import ordered
from orchestrator.tasks.faults import MAX_SHOWN, Faults


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
        faults.entries.append((row["row"], column, f"label {row['label']!r} is not among the training rows; {hint}"))
    if not drop:
        faults.raise_if_any(key)
    position = table.column_names.index("label")
    return table.set_column(position, "label", codes).filter(codes.is_valid())


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
        raise _problem(file, key, [f"all {table.num_rows:,} rows have the label {labels[0]!r}; two classes are needed"])
    if table.num_rows < min_rows * len(labels):
        raise _problem(file, key, [f"{table.num_rows:,} rows are too few for {len(labels):,} classes"])
    counts = np.bincount(table["label"].to_numpy(), minlength=len(labels))
    messages = [
        f"class {labels[i]!r} has {counts[i]} rows; {min_rows} are needed" for i in np.flatnonzero(counts < min_rows)
    ]
    if messages:
        more = len(messages) - MAX_SHOWN
        rest = [f"{more:,} more classes have too few rows"] if more > 0 else []
        raise _problem(file, key, [*messages[:MAX_SHOWN], *rest])


def majority_share(splits: Mapping[str, pa.Table]) -> float:
    """Return the share of the test rows that have the most frequent training label."""
    most_frequent = np.bincount(splits["train"]["label"].to_numpy()).argmax()
    return float((splits["test"]["label"].to_numpy() == most_frequent).mean())


def _problem(file: str, key: str, messages: list[str]) -> InputError:
    return InputError(file, [Problem(f"{key}.label", message) for message in messages])
