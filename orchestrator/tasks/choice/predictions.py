"""Tables of predictions: the probabilities of the choices of each row, and the most likely one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.tokens import token_column
from orchestrator.tasks.trivial import with_column


def with_choices(predictions: pa.Table, choices: int, codes: NDArray[np.int64]) -> pa.Table:
    """Return predictions with the probability 1 of one choice for each row, of choices that all rows have."""
    return with_probabilities(predictions.select(["row", "label"]), [*np.eye(choices)[codes]], True)


def with_places(predictions: pa.Table, codes: NDArray[np.int64]) -> pa.Table:
    """Return predictions with another choice for each row, the last of those that have fewer."""
    last = np.array([len(row) - 1 for row in predictions["probabilities"].to_pylist()])
    return with_column(predictions, "predicted", pa.array(np.minimum(codes, last).astype(np.int32)))


def answer_column(rows: pa.Table) -> str:
    """Return the column of the right choices, of a split table or a tokenized one."""
    return "label" if "label" in rows.column_names else "answer"


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of a row's choices by their log-likelihoods."""
    weights = np.exp(values - values.max(initial=-np.inf))
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def with_probabilities(rows: pa.Table, values: list[NDArray[np.float64]], same_choices: bool) -> pa.Table:
    """Return rows with ``predicted`` and ``probabilities``.

    Args:
        rows: Columns beside which the two stand.
        values: Probabilities of the choices of each row.
        same_choices: Whether all rows have the same choices.
    """
    column = token_column(values, np.float64)
    if same_choices:
        column = pa.FixedSizeListArray.from_arrays(column.flatten(), len(values[0]))
    predicted = pa.array([int(row.argmax()) for row in values], pa.int32())
    return rows.append_column("predicted", predicted).append_column("probabilities", column)
