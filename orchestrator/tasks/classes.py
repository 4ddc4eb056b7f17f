"""The classes of a classification task: their names, their numbers, whether there are enough rows of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.tasks.columns import ordered
from orchestrator.tasks.faults import SHOWN, Faults


def encode(
    tables: Mapping[str, pa.Table], files: Mapping[str, str], column: str, key: str, drop: bool
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Labels as indices into the names of the classes, which are those of the training rows.

    Args:
        tables: by split; ``train`` among them.
        files: the file that each split comes from.
        column: the label column's name in the files.
        key: key path of the task, for errors.
        drop: whether rows with a label that the training rows lack are dropped.

    Raises:
        InputError: if there are such rows and they are not to be dropped.
    """
    labels = ordered(tables["train"]["label"])
    return {name: _encoded(table, labels, files[name], column, key, drop) for name, table in tables.items()}, labels


def _encoded(table: pa.Table, labels: tuple[str, ...], file: str, column: str, key: str, drop: bool) -> pa.Table:
    codes = pc.index_in(table["label"].combine_chunks(), pa.array(labels, pa.string()))
    faults = Faults(file, table["row"].to_numpy())
    for row in table.filter(codes.is_null()).to_pylist() if codes.null_count else []:
        hint = did_you_mean(row["label"], labels, "labels")
        faults.found.append((row["row"], column, f"label {row['label']!r} is not among the training rows; {hint}"))
    if not drop:
        faults.refuse(key)
    place = table.column_names.index("label")
    return table.set_column(place, "label", codes).filter(codes.is_valid())


def require_classes(table: pa.Table, labels: tuple[str, ...], file: str, key: str, fewest: int = 3) -> None:
    """Check that there is something to tell apart.

    Args:
        table: with labels as numbers.
        labels: names of the classes.
        file: where the rows come from.
        key: key path of the task, for errors.
        fewest: rows that every class must have.

    Raises:
        InputError: if there is a single class, or a class with too few rows.
    """
    if len(labels) == 1:
        raise _problem(file, key, [f"all {table.num_rows:,} rows have the label {labels[0]!r}; two classes are needed"])
    if table.num_rows < fewest * len(labels):
        raise _problem(file, key, [f"{table.num_rows:,} rows are too few for {len(labels):,} classes"])
    counts = np.bincount(table["label"].to_numpy(), minlength=len(labels))
    small = [f"class {labels[i]!r} has {counts[i]} rows; {fewest} are needed" for i in np.flatnonzero(counts < fewest)]
    if small:
        more = [f"{len(small) - SHOWN:,} more classes have too few rows"] if len(small) > SHOWN else []
        raise _problem(file, key, [*small[:SHOWN], *more])


def majority_share(splits: Mapping[str, pa.Table]) -> float:
    """How much of the test rows is right who always answers the most frequent training label."""
    frequent = np.bincount(splits["train"]["label"].to_numpy()).argmax()
    return float((splits["test"]["label"].to_numpy() == frequent).mean())


def _problem(file: str, key: str, messages: list[str]) -> InputError:
    return InputError(file, [Problem(f"{key}.label", message) for message in messages])
