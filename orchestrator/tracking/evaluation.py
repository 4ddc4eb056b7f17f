"""The recorded predictions of a bundle: which rows they are of, without the rows themselves unless those are wanted.

A bundle travels to a registry, to servers and into images. By default it holds of every test row its number, a digest
of its values, and the numbers that were predicted; neither texts nor labels. Whoever has the rows can check that they
are the same, and predict them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pyarrow as pa

from orchestrator.common.errors import SweepError

DIGEST = "digest"
ROWS_TAG = "test_rows_kept"
"""Tag of a version: ``true`` where it carries the rows; missing in versions of earlier releases, which all do."""
NUMBERS = ("probabilities", "log_likelihoods", "nll", "predicted", "similarity")
"""Columns of predictions that hold what was computed, and nothing of the rows."""


def with_rows(rows: pa.Table, predictions: pa.Table) -> pa.Table:
    """Return the columns of a split with those of its predictions beside them.

    Args:
        rows: the split, with ``row`` and its texts.
        predictions: predictions for the same rows in the same order.

    Raises:
        ValueError: if the rows differ.
    """
    _require_same_rows(rows, predictions)
    for name in predictions.column_names:
        if name not in rows.column_names:
            rows = rows.append_column(name, predictions[name])
    return rows


def with_digests(rows: pa.Table, predictions: pa.Table) -> pa.Table:
    """Return the numbers of predictions with the digests of the rows beside them. Arguments as in :func:`with_rows`."""
    _require_same_rows(rows, predictions)
    columns = {name: predictions[name] for name in NUMBERS if _is_numeric(predictions, name)}
    return pa.table({"row": rows["row"], DIGEST: digests(rows), **columns})


def rows_of(recorded: pa.Table, rows: pa.Table) -> pa.Table:
    """Return the rows that predictions were recorded of, in their order.

    Args:
        recorded: table of :func:`with_digests`.
        rows: test split of the sweep.

    Raises:
        SweepError: if a row is missing or has changed.
    """
    places = {number: place for place, number in enumerate(rows["row"].to_pylist())}
    try:
        chosen = rows.take(pa.array([places[number] for number in recorded["row"].to_pylist()], pa.int64()))
    except KeyError as error:
        raise SweepError(f"the sweep's data has no test row {error.args[0]:,} any more") from error
    pairs = zip(digests(chosen), recorded[DIGEST].to_pylist(), chosen["row"].to_pylist(), strict=True)
    changed = [number for digest, before, number in pairs if digest != before]
    if changed:
        raise SweepError(f"the sweep's data has changed: row {changed[0]:,} and {len(changed) - 1:,} more differ")
    return chosen


def digests(rows: pa.Table) -> list[str]:
    """Return SHA-256 over each row's values, the first 32 hexadecimal digits, wherever the row stands."""
    names = sorted(set(rows.column_names) - {"row"})
    lines: Sequence[dict[str, object]] = rows.select(names).to_pylist()
    return [hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:32] for line in lines]


def _require_same_rows(rows: pa.Table, predictions: pa.Table) -> None:
    if not rows["row"].equals(predictions["row"]):
        raise ValueError("the predictions are not those of these rows, in this order")


def _is_numeric(table: pa.Table, name: str) -> bool:
    if name not in table.column_names:
        return False
    kind = table.schema.field(name).type
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))
