"""How many rows are longer than a model may read, and what they lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks._base import TaskType
from orchestrator.tasks.data import TaskData
from orchestrator.tasks.rendering import is_rendered
from orchestrator.tasks.tokens import characters, lengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COUNTED_ROWS = 1000
"""Long samples of a split that are tokenized to count those that are cut."""
NO_LIMIT = 10_000_000
"""Tokens of a row, at most, to see its whole length."""


@dataclass(frozen=True)
class CutRows:
    """The rows of a split that lose tokens.

    Args:
        cut: How many.
        rows: All rows of the split; a conversation of several samples is one row.
        is_estimate: Whether only some of the long rows were tokenized.
        trained: How many trained tokens the rows that are cut have as a whole; 0 for types that train no tokens.
        lost: How many of these are cut off.
    """

    cut: int
    rows: int
    is_estimate: bool
    trained: int = 0
    lost: int = 0

    def __str__(self) -> str:
        """Return ``12 of 1,200 rows (1.0%), which lose 40 of their 300 trained tokens``."""
        about = "about " if self.is_estimate else ""
        tokens = f", which lose {about}{self.lost:,} of their {self.trained:,} trained tokens" if self.trained else ""
        return f"{about}{self.cut:,} of {self.rows:,} rows ({self.cut / max(1, self.rows):.1%}){tokens}"

    def fields(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> CutRows:
        """Return the counts that :meth:`fields` has described."""
        return cls(**fields)


def cut_rows_of(data: TaskData, kind: TaskType, tokenizer: PreTrainedTokenizerBase, limit: int) -> dict[str, CutRows]:
    """Return what each split of a task loses where rows have so many tokens at most; splits that lose nothing too."""
    return {split: count_cut_rows(rows, kind, tokenizer, limit) for split, rows in data.splits.items()}


def count_cut_rows(rows: pa.Table, kind: TaskType, tokenizer: PreTrainedTokenizerBase, max_length: int) -> CutRows:
    """Count the rows of a split that lose tokens, and the trained tokens that they lose.

    Only samples with half as many characters as a row may have tokens are tokenized: a token is a character at least,
    but for those that templates add. Of many such samples some are drawn.

    Args:
        rows: Samples of the split.
        kind: Type of the task.
        tokenizer: The checkpoint's tokenizer.
        max_length: Tokens of a row, at most.
    """
    numbers = rows["row"].to_numpy()
    total = len(np.unique(numbers))
    long: NDArray[np.int64] = np.flatnonzero(text_characters(rows, kind) >= max_length // 2)
    counted = long
    if len(long) > COUNTED_ROWS:  # drawn, since rows can follow a pattern
        counted = np.sort(np.random.default_rng(0).choice(long, COUNTED_ROWS, replace=False))
    if not len(counted):
        return CutRows(0, total, False)
    sample = rows.take(pa.array(counted))
    kept, whole = (kind.tokenize(sample, tokenizer, length) for length in (max_length, NO_LIMIT))
    is_cut = lengths(whole) > lengths(kept)
    left, trained = (_trained(tokens, kind)[is_cut].sum() for tokens in (kept, whole))
    cut = len(np.unique(numbers[counted][is_cut]))
    scale = len(long) / len(counted)
    lost, of = (round(int(count) * scale) for count in (trained - left, trained))
    return CutRows(min(total, round(cut * scale)), total, len(counted) < len(long), of, lost)


def text_characters(rows: pa.Table, kind: TaskType) -> NDArray[np.int64]:
    """Return how many characters the texts of each row have, lists of texts included."""
    counts = np.zeros(rows.num_rows, np.int64)
    is_whole = "text" in rows.column_names and is_rendered(rows)  # prompt and answer stand in it
    for column in ("text",) if is_whole else kind.text_columns:
        if column in rows.column_names:
            counts += characters(rows[column])
    return counts


def _trained(tokens: pa.Table, kind: TaskType) -> NDArray[np.int64]:
    """Return how many tokens of each sample are trained."""
    return np.array([mask.sum() for mask in kind.trained_tokens(tokens)], np.int64)
