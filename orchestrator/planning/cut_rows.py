"""How many rows are longer than a model may read, and lose tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.planning.row_lengths import text_characters
from orchestrator.tasks import TaskType
from orchestrator.tasks.tokens import lengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COUNTED_ROWS = 1000
"""Long rows of a split that are tokenized to count those that are cut."""


@dataclass(frozen=True)
class CutRows:
    """The rows of a split that lose tokens.

    Args:
        cut: How many.
        rows: All rows of the split.
        is_estimate: Whether only some of the long rows were tokenized.
    """

    cut: int
    rows: int
    is_estimate: bool

    def __str__(self) -> str:
        """Return ``12 of 1,200 rows (1.0%)``."""
        about = "about " if self.is_estimate else ""
        return f"{about}{self.cut:,} of {self.rows:,} rows ({self.cut / max(1, self.rows):.1%})"


def count_cut_rows(rows: pa.Table, kind: TaskType, tokenizer: PreTrainedTokenizerBase, max_length: int) -> CutRows:
    """Count the rows of a split that lose tokens.

    Only rows with half as many characters as a row may have tokens are tokenized: a token is a character at least, but
    for those that templates add. Of many such rows a sample is.

    Args:
        rows: Rows of the split.
        kind: Type of the task.
        tokenizer: The checkpoint's tokenizer.
        max_length: Tokens of a row, at most.
    """
    long: NDArray[np.int64] = np.flatnonzero(text_characters(rows, kind) >= max_length // 2)
    counted = long
    if len(long) > COUNTED_ROWS:  # drawn, since rows can follow a pattern
        counted = np.sort(np.random.default_rng(0).choice(long, COUNTED_ROWS, replace=False))
    if not len(counted):
        return CutRows(0, rows.num_rows, False)
    sample = rows.take(pa.array(counted))
    cut = int((lengths(kind.tokenize(sample, tokenizer, max_length + 1)) > max_length).sum())
    return CutRows(round(cut * len(long) / len(counted)), rows.num_rows, len(counted) < len(long))
