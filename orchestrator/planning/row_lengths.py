"""How long the rows of a task are, from a sample and from those that look longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks import TaskType
from orchestrator.tasks.cut_rows import text_characters
from orchestrator.tasks.tokens import lengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE_ROWS, LONGEST_ROWS = 256, 32


@dataclass(frozen=True)
class RowLengths:
    """Tokens per row.

    Args:
        longest: tokens of the longest row, which decides how much memory a batch takes.
        mean: mean number of tokens.
        targets: mean number of tokens that count in a language model's loss.
    """

    longest: int
    mean: float
    targets: int

    @classmethod
    def of(cls, rows: pa.Table, kind: TaskType, tokenizer: PreTrainedTokenizerBase, max_length: int) -> RowLengths:
        """Measure the first rows, and for the maximum also those with the most characters.

        Args:
            rows: training rows.
            kind: type of the task.
            tokenizer: the checkpoint's tokenizer.
            max_length: tokens of a row, at most; longer rows are cut.
        """
        sample = kind.tokenize(rows.slice(0, SAMPLE_ROWS), tokenizer, max_length)
        long = kind.tokenize(rows.take(pa.array(_most_characters(rows, kind))), tokenizer, max_length)
        return cls(
            longest=int(max(lengths(sample).max(), lengths(long).max())),
            mean=float(lengths(sample).mean()),
            targets=max(1, round(float(kind.target_tokens(sample).mean()))),
        )


def _most_characters(rows: pa.Table, kind: TaskType) -> NDArray[np.int64]:
    """Return the positions of the rows whose texts have the most characters."""
    order: NDArray[np.int64] = np.argsort(text_characters(rows, kind), kind="stable").astype(np.int64)
    return order[-LONGEST_ROWS:]
