"""What the model sees of a task's rows: tokens, who says them, which are trained, and what was cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.backbone.source import resolve
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.planning.checkpoint import fit_max_length, read_checkpoint, require_tokenizer
from orchestrator.tasks import TASK_TYPES, TaskData, TaskType, read_task, task_type
from orchestrator.tasks.cut_rows import NO_LIMIT
from orchestrator.tasks.rendering import render_task
from orchestrator.tasks.splits import NAMES
from orchestrator.tasks.tokens import lengths, sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from orchestrator.config import SweepConfig

LARGEST_ROW = 2**63 - 1
"""A number that no row has, and the largest that rows can be compared with."""
MOST_BYTES = 4
"""Most bytes of a character in UTF-8, each of which may be a token."""


@dataclass(frozen=True)
class PreviewToken:
    """A token.

    Args:
        id: Its number.
        text: Its text; of a character that is several tokens, the last one has it.
        trained: Whether the model learns to write it.
        role: Who says it, where that is known.
    """

    id: int
    text: str
    trained: bool
    role: str = ""


@dataclass(frozen=True)
class PreviewRow:
    """A row as the model sees it.

    Args:
        split: Its split.
        row: Its number in the file.
        tokens: Its tokens.
        cut: How many tokens were left out, since the row was too long.
        label: What is to be answered, where that is no text.
    """

    split: str
    row: int
    tokens: tuple[PreviewToken, ...]
    cut: int
    label: str = ""

    @property
    def trained(self) -> int:
        """How many of the tokens are trained."""
        return sum(token.trained for token in self.tokens)


@dataclass(frozen=True)
class SplitLengths:
    """How long the rows of a split are, in tokens.

    Args:
        split: Name of the split.
        rows: Number of rows.
        shortest: Tokens of the shortest row.
        median: Tokens of the row in the middle.
        longest: Tokens of the longest row.
        trained: Share of the tokens that are trained.
        cut_rows: How many rows were too long.
        cut_tokens: How many tokens they lost.
    """

    split: str
    rows: int
    shortest: int
    median: int
    longest: int
    trained: float
    cut_rows: int
    cut_tokens: int


class Preview:
    """A task's rows as the model sees them; nothing but tokenizer and rows is read.

    Args:
        config: The configuration.
        task: Name of the task; the first one if left out.

    Raises:
        InputError: If there is no such task, or its rows or the tokenizer cannot be used.
    """

    def __init__(self, config: SweepConfig, task: str | None = None) -> None:
        self.task = task or next(iter(config.tasks))
        if self.task not in config.tasks:
            hint = did_you_mean(self.task, list(config.tasks), "tasks")
            raise InputError("--task", [Problem(self.task, f"is not a task of {config.name}; {hint}")])
        data = read_task(self.task, config.tasks[self.task], config.base, config.seed)
        source = resolve(config.backbone, config.base)
        _, tokenizer, row_limit = read_checkpoint(source)
        require_tokenizer(config, source, tokenizer)
        fitted = fit_max_length(config, row_limit)
        self.max_length = fitted.training.max_length
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.data: TaskData = render_task(data, TASK_TYPES[data.config.type], tokenizer)
        self.type: TaskType = task_type(data.config, labels=data.labels, constants=data.constants)

    def rows(self, splits: Sequence[str] = NAMES, row: int | None = None, count: int | None = None) -> list[PreviewRow]:
        """Return rows of splits.

        Args:
            splits: Names of the splits.
            row: Number of one row in its file; all rows if left out.
            count: The most rows.

        Raises:
            InputError: If no split has that row.
        """
        found: list[PreviewRow] = []
        for split in splits:
            rows = self.data.splits[split]
            if row is not None:
                rows = rows.filter(pc.equal(rows["row"], min(row, LARGEST_ROW)))
            room = rows.num_rows if count is None else count - len(found)
            found += self._previews(split, rows.slice(0, max(0, room)))
        if row is not None and not found:
            message = f"no row {row} is in {', '.join(splits)}: it was dropped, is a duplicate, or is not in the file"
            raise InputError("--row", [Problem("", message)])
        return found

    def lengths(self, split: str) -> SplitLengths:
        """Return how long the rows of a split are."""
        rows = self.data.splits[split]
        tokens, whole = (self.type.tokenize(rows, self.tokenizer, length) for length in (self.max_length, NO_LIMIT))
        kept, cut = lengths(tokens), lengths(whole) - lengths(tokens)
        trained = sum(int(mask.sum()) for mask in self.type.trained_tokens(tokens))
        return SplitLengths(
            split,
            rows.num_rows,
            int(kept.min()),
            int(np.median(kept)),
            int(kept.max()),
            trained / max(1, int(kept.sum())),
            int((cut > 0).sum()),
            int(cut.sum()),
        )

    def _previews(self, split: str, rows: pa.Table) -> Iterator[PreviewRow]:
        if not rows.num_rows:
            return
        tokens, whole = (self.type.tokenize(rows, self.tokenizer, length) for length in (self.max_length, NO_LIMIT))
        masks, cut = self.type.trained_tokens(tokens), lengths(whole) - lengths(tokens)
        for place, ids in enumerate(sequences(tokens, np.arange(tokens.num_rows))):
            row = rows.slice(place, 1)
            roles = self.type.token_roles(row, tokens.slice(place, 1), self.tokenizer, self.max_length)
            texts = token_texts(self.tokenizer, ids.tolist())
            parts = zip(ids.tolist(), texts, masks[place].tolist(), roles, strict=True)
            previewed = tuple(PreviewToken(*part) for part in parts)
            yield PreviewRow(split, row["row"][0].as_py(), previewed, int(cut[place]), self._label(row))

    def _label(self, row: pa.Table) -> str:
        if "label" not in row.column_names:
            return ""
        value = row["label"][0].as_py()
        names = self.data.labels
        return names[value] if isinstance(value, int) and value < len(names) else str(value)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text of each token; together they are the row's text.

    A character that is several tokens is the text of the last of them.
    """
    texts: list[str] = []
    pending: list[int] = []
    for token in ids:
        pending.append(token)
        decoded = tokenizer.decode(pending, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text = cast("str", decoded)
        is_whole = "\ufffd" not in text or len(pending) == MOST_BYTES
        texts.append(text if is_whole else "")
        pending = [] if is_whole else pending
    return texts
