"""Train, validation and test: no row in two of them, every class in each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.tasks.mapped import mapped_rows
from orchestrator.tasks.section import Split

Indices = NDArray[np.int64]
NAMES = ("train", "validation", "test")
KEYED_ROWS = 1024
"""Rows whose texts are copied at once to make their keys."""


def duplicate_keys(table: pa.Table, columns: Sequence[str]) -> pa.Array:
    """Return a key per row that exact duplicates share: 16 bytes of a hash of its texts, numbers, and lists of texts.

    Args:
        table: Split table.
        columns: Columns of texts; those that the table lacks do not count, and a null has no length.
    """
    keys = [
        hashlib.blake2b(content, digest_size=16).digest()
        for start in range(0, table.num_rows, KEYED_ROWS)
        for content in _contents(table.slice(start, KEYED_ROWS), columns).to_pylist()
    ]
    return pa.array(keys, pa.binary())


def _contents(table: pa.Table, columns: Sequence[str]) -> pa.Array:
    """Return the texts of each row as bytes.

    Their lengths come first, since any character may occur in a text and none can separate two of them.
    """
    arrays = [table[name].combine_chunks() for name in columns if name in table.column_names]
    texts = [_joined(array) if pa.types.is_list(array.type) else array.cast(pa.string()) for array in arrays]
    texts = [pc.fill_null(text, "") for text in texts]
    sizes = [pc.fill_null(pc.binary_length(text).cast(pa.string()), "") for text in texts]
    return pc.binary_join_element_wise(*sizes, *(pc.fill_null(text, "") for text in texts), ":").cast(pa.binary())


def _joined(lists: pa.Array) -> pa.Array:
    """Return a text for each list of texts, the same for the same lists only."""
    texts = lists.flatten().cast(pa.string())
    sized = pc.binary_join_element_wise(pc.binary_length(texts).cast(pa.string()), texts, ":")
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), sized), "")


def first_of_each(keys: pa.Array) -> Indices:
    """Return the indices of the first row of each key, in order."""
    codes = keys.dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1]).astype(np.int64)


def without_duplicates(splits: dict[str, pa.Table], columns: Sequence[str]) -> tuple[dict[str, pa.Table], int]:
    """Remove the rows of given splits that occur in another split or twice in one.

    The test rows stay unchanged; validation loses the rows that are among them, and train those of both.

    Returns:
        The splits, and how many rows were removed.
    """
    keys = {name: duplicate_keys(splits[name], columns) for name in NAMES}
    seen, cleaned = keys["test"], {"test": splits["test"]}
    for name in ("validation", "train"):
        is_first = np.zeros(len(keys[name]), bool)
        is_first[first_of_each(keys[name])] = True
        is_new = ~pc.is_in(keys[name], seen).to_numpy(zero_copy_only=False)
        kept = is_first & is_new
        cleaned[name] = splits[name] if kept.all() else mapped_rows(splits[name], np.flatnonzero(kept))
        seen = pa.concat_arrays([seen, keys[name]])
    removed = sum(splits[name].num_rows - cleaned[name].num_rows for name in NAMES)
    return {name: cleaned[name] for name in NAMES}, removed


def split_rows(count: int, fractions: Split, seed: int, labels: NDArray[np.int32] | None) -> dict[str, Indices]:
    """Draw splits; classes keep their shares where there are labels. The indices of each split ascend.

    Raises:
        ValueError: If a split would be empty, or lack one of the classes.
    """
    from sklearn.model_selection import train_test_split

    def cut(indices: Indices, fraction: float) -> tuple[Indices, Indices]:
        classes = None if labels is None else labels[indices]
        rest, part = train_test_split(indices, test_size=fraction, random_state=seed, stratify=classes)
        return np.sort(rest), np.sort(part)

    rest, test = cut(np.arange(count), fractions.test)
    train, validation = cut(rest, fractions.validation / (fractions.train + fractions.validation))
    return {"train": train, "validation": validation, "test": test}
