"""Train, validation and test: no row in two of them, every class in each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.config import Split

Indices = NDArray[np.int64]
NAMES = ("train", "validation", "test")


def identities(table: pa.Table, columns: list[str]) -> pa.Array:
    """What makes a row an exact duplicate of another: its texts, with their lengths since any character may occur."""
    texts = [table[name].combine_chunks() for name in columns]
    sizes = [pc.binary_length(text).cast(pa.string()) for text in texts]
    return pc.binary_join_element_wise(*sizes, *texts, ":")


def first_of_each(keys: pa.Array) -> Indices:
    """Indices of the first row of each key, in order."""
    codes = keys.dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1]).astype(np.int64)


def without_duplicates(splits: dict[str, pa.Table], columns: list[str]) -> tuple[dict[str, pa.Table], int]:
    """Given splits with every row in one place only: test stays as it is, validation gives way to it, train to both.

    Returns:
        The splits, and how many rows went.
    """
    keys = {name: identities(splits[name], columns) for name in NAMES}
    taken, left = keys["test"], {"test": splits["test"]}
    for name in ("validation", "train"):
        first = np.zeros(len(keys[name]), bool)
        first[first_of_each(keys[name])] = True
        fresh = ~pc.is_in(keys[name], taken).to_numpy(zero_copy_only=False)
        left[name] = splits[name].filter(pa.array(first & fresh))
        taken = pa.concat_arrays([taken, keys[name]])
    removed = sum(splits[name].num_rows - left[name].num_rows for name in NAMES)
    return {name: left[name] for name in NAMES}, removed


def split_rows(count: int, fractions: Split, seed: int, labels: NDArray[np.int32] | None) -> dict[str, Indices]:
    """Seeded splits; classes keep their shares where there are labels. Indices in each split ascend.

    Raises:
        ValueError: if a split would be empty, or without one of the classes.
    """
    from sklearn.model_selection import train_test_split

    def cut(indices: Indices, fraction: float) -> tuple[Indices, Indices]:
        classes = None if labels is None else labels[indices]
        kept, away = train_test_split(indices, test_size=fraction, random_state=seed, stratify=classes)
        return np.sort(kept), np.sort(away)

    rest, test = cut(np.arange(count), fractions.test)
    train, validation = cut(rest, fractions.validation / (fractions.train + fractions.validation))
    return {"train": train, "validation": validation, "test": test}
