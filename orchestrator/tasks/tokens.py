"""Tokenized rows as Arrow holds them, and as a padded batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.batches import in_turn

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

INPUTS = ("input_ids", "attention_mask", "task_ids")
"""What a model is called with, of a batch; task ids are there while a trial learns from other tasks."""


def token_column(rows: Iterable[Sequence[int]]) -> pa.Array:
    """One list of token ids per row, in one piece."""
    lists = [np.asarray(row, np.int32) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int32)
    values = np.concatenate(lists) if lists else np.empty(0, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def integers(rows: pa.Table, column: str) -> NDArray[np.integer]:
    """A column's values; no copy where the column is in one piece."""
    chunks = rows[column].chunks
    array: NDArray[np.integer] = (chunks[0] if len(chunks) == 1 else rows[column].combine_chunks()).to_numpy()
    return array


def shown(rows: pa.Table, count: int, seed: int) -> list[tuple[int, int]]:
    """Rows to show a method as examples: up to so many, each as its position and its class (0 without classes).

    Drawn with the seed; every class comes once before any comes twice.
    """
    classes = integers(rows, "label") if "label" in rows.column_names else np.zeros(rows.num_rows, np.int32)
    chosen = in_turn(rows["row"].to_numpy(), classes, seed)[:count]
    return [(int(position), int(classes[position])) for position in chosen]


def ragged(rows: pa.Table) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Token ids of all rows in one array, and where each row starts in it; row ``i`` is ``ids[starts[i]:starts[i+1]]``.

    No copy where the column is in one piece.
    """
    column = rows["input_ids"]
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return chunk.values.to_numpy(), chunk.offsets.to_numpy()


def lengths(rows: pa.Table) -> NDArray[np.int64]:
    """Tokens of each row."""
    return np.diff(ragged(rows)[1]).astype(np.int64)


def pad(sequences: Sequence[NDArray[np.int32]], pad_id: int, left: bool) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``, as long as the longest sequence."""
    import torch

    width = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), width), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for line, sequence in enumerate(sequences):
        place = slice(width - len(sequence), width) if left else slice(len(sequence))
        ids[line, place], mask[line, place] = sequence, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters live."""
    return next(model.parameters()).device
