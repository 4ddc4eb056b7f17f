"""Tokenized rows as Arrow holds them, and as padded batches of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.tasks.batches import class_by_class

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Tokens = list[NDArray[np.int32]]
"""Token ids of several sequences."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "task_ids")
"""The tensors of a batch that a model is called with: token types are there for pairs that the model tells apart, and
task ids while a trial trains on other tasks."""
IGNORED_LABEL = -100
"""The label of a token that takes no part in the loss."""


def token_column(rows: Iterable[Sequence[int] | NDArray[Any]], dtype: type[np.generic] = np.int32) -> pa.Array:
    """Return a column with one list of token ids, or of another number per token, per row, in one chunk."""
    lists = [np.asarray(row, dtype) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists])]).astype(np.int32)
    values = np.concatenate(lists) if lists else np.empty(0, dtype)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def integers(rows: pa.Table, column: str) -> NDArray[np.integer]:
    """Return a column's values; no copy where the column is one chunk."""
    array: NDArray[np.integer] = whole(rows[column]).to_numpy()
    return array


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; no copy where it is one chunk, which ``combine_chunks`` would copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def example_rows(rows: pa.Table, count: int, seed: int) -> list[tuple[int, int]]:
    """Draw rows to show a method as examples.

    Every class comes once before any class comes twice.

    Args:
        rows: Split table, with the class of each row in ``label`` if there are classes.
        count: Number of examples; there are fewer where the table has fewer rows.
        seed: Seed of the draw.

    Returns:
        Position and class of each; class 0 where there are no classes.
    """
    classes = integers(rows, "label") if "label" in rows.column_names else np.zeros(rows.num_rows, np.int32)
    positions = class_by_class(rows["row"].to_numpy(), classes, seed)[:count]
    return [(int(position), int(classes[position])) for position in positions]


def first_and_rest(rows: pa.Table, indices: NDArray[np.int64], column: str) -> tuple[Tokens, Tokens]:
    """Return the token ids of some rows, cut in two: the first so many tokens as a column says, and the others."""
    counts = integers(rows, column)[indices]
    pairs = list(zip(sequences(rows, indices), counts, strict=True))
    return [ids[:count] for ids, count in pairs], [ids[count:] for ids, count in pairs]


def ragged(rows: pa.Table, name: str = "input_ids") -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the token ids of all rows in one array, or another number per token, and the offset of each row in it.

    Row ``i`` is ``ids[offsets[i]:offsets[i + 1]]``. No copy where the column is one chunk.
    """
    column = rows[name]
    chunk = whole(column)
    return chunk.values.to_numpy(), chunk.offsets.to_numpy()


def sequences(rows: pa.Table, indices: NDArray[np.int64], name: str = "input_ids") -> list[NDArray[Any]]:
    """Return the token ids of some rows, or another number per token."""
    ids, offsets = ragged(rows, name)
    return [ids[offsets[index] : offsets[index + 1]] for index in indices]


def lengths(rows: pa.Table) -> NDArray[np.int64]:
    """Return the number of tokens of each row."""
    return np.diff(ragged(rows)[1]).astype(np.int64)


def pad(token_ids: Sequence[NDArray[Any]], pad_id: int, left: bool) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``, as long as the longest sequence."""
    import torch

    width = max(len(sequence) for sequence in token_ids)
    ids = np.full((len(token_ids), width), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(token_ids):
        place = slice(width - len(sequence), width) if left else slice(len(sequence))
        ids[row, place], mask[row, place] = sequence, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def characters(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the number of characters of each row's text, or of its list of texts; 0 where it has none."""
    return np.concatenate([np.zeros(0, np.int64), *map(_characters, column.chunks)])


def _characters(array: pa.Array) -> NDArray[np.int64]:
    if not pa.types.is_list(array.type):
        single: NDArray[np.int64] = pc.fill_null(pc.utf8_length(array), 0).to_numpy().astype(np.int64)
        return single
    sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    ends = np.concatenate([[0], np.cumsum(pc.utf8_length(array.flatten()).to_numpy().astype(np.int64))])
    counts: NDArray[np.int64] = np.diff(ends[np.concatenate([[0], np.cumsum(sizes)])])
    return counts


def model_inputs(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a batch that a model is called with, on the model's device."""
    device = device_of(model)
    return {name: batch[name].to(device) for name in INPUTS if name in batch}


def in_table_order(batches: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how to put results that were computed batch by batch into the table's order.

    Returns:
        The permutation of the results, and the table's indices of the permuted results.
    """
    indices = np.concatenate(batches)
    order = np.argsort(indices, kind="stable")
    return order, indices[order]


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters."""
    return next(model.parameters()).device
