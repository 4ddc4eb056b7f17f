"""Columns as texts and labels, with a mark on every value that cannot be one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """A column's values as texts.

    Args:
        name: Name of the column.
        texts: One string per row; null where the file has no value.
        undecodable: Rows whose bytes cannot be decoded in the file's encoding.
    """

    name: str
    texts: pa.Array
    undecodable: Mask

    @property
    def empty(self) -> Mask:
        """Rows without a value, or with white space alone."""
        return flags(pc.equal(pc.utf8_trim_whitespace(self.texts), ""), null=True)


def flags(values: pa.Array, null: bool) -> Mask:
    """Return a boolean array as numpy, with ``null`` in place of null."""
    array: Mask = pc.fill_null(values, null).to_numpy(zero_copy_only=False).astype(bool)
    return array


def as_texts(table: pa.Table, name: str, file: str) -> Column:
    """Return a column's values as texts, whatever type the file gives them.

    Raises:
        InputError: If the values are lists or mappings.
    """
    array = table[name].combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    value_type, none = array.type, np.zeros(len(array), bool)
    if pa.types.is_nested(value_type):
        raise InputError(file, [Problem(f"column {name}", f"holds values of type {value_type}; write texts")])
    if _is_textual(value_type):
        return Column(name, *_decoded(array.cast(pa.binary())))
    if pa.types.is_floating(value_type) and flags(pc.equal(pc.floor(array), array), null=True).all():
        array = array.cast(pa.int64())  # whole numbers with gaps, as pandas writes them
    return Column(name, array.cast(pa.string()), none)


def ordered(labels: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the distinct labels: numbers by size, texts by alphabet."""
    distinct = pc.unique(labels).to_pylist()
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(sorted(distinct))


def _is_textual(value_type: pa.DataType) -> bool:
    tests = ("is_string", "is_large_string", "is_binary", "is_large_binary", "is_string_view", "is_binary_view")
    return any(getattr(pa.types, test)(value_type) for test in tests)


def _decoded(array: pa.Array) -> tuple[pa.Array, Mask]:
    try:
        return array.cast(pa.string()), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        values = array.to_pylist()
    texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
    bad = [text is not None and value != text.encode() for value, text in zip(values, texts, strict=True)]
    return pa.array(texts, pa.string()), np.array(bad)
