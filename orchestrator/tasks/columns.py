"""Columns as texts and labels, with a mark on every value that is neither."""

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
        name: the column's.
        texts: one string per row; null where the file has none.
        undecodable: rows whose bytes are no text in the file's encoding.
    """

    name: str
    texts: pa.Array
    undecodable: Mask

    @property
    def empty(self) -> Mask:
        """Rows without a value, or with white space alone."""
        return flags(pc.equal(pc.utf8_trim_whitespace(self.texts), ""), null=True)


def flags(values: pa.Array, null: bool) -> Mask:
    """A boolean array as numpy, with something in place of null."""
    array: Mask = pc.fill_null(values, null).to_numpy(zero_copy_only=False).astype(bool)
    return array


def as_texts(table: pa.Table, name: str, file: str) -> Column:
    """A column's values as texts, whatever type the file gives them.

    Raises:
        InputError: if they are no plain values (lists, mappings).
    """
    array = table[name].combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind, none = array.type, np.zeros(len(array), bool)
    if pa.types.is_nested(kind):
        raise InputError(file, [Problem(f"column {name}", f"holds values of type {kind}; texts are wanted")])
    if _is_textual(kind):
        return Column(name, *_decoded(array.cast(pa.binary())))
    if pa.types.is_floating(kind) and flags(pc.equal(pc.floor(array), array), null=True).all():
        array = array.cast(pa.int64())  # whole numbers with gaps, as pandas writes them
    return Column(name, array.cast(pa.string()), none)


def ordered(labels: pa.ChunkedArray) -> tuple[str, ...]:
    """The distinct labels: numbers by size, texts by alphabet."""
    distinct = pc.unique(labels).to_pylist()
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(sorted(distinct))


def _is_textual(kind: pa.DataType) -> bool:
    tests = ("is_string", "is_large_string", "is_binary", "is_large_binary", "is_string_view", "is_binary_view")
    return any(getattr(pa.types, test)(kind) for test in tests)


def _decoded(array: pa.Array) -> tuple[pa.Array, Mask]:
    try:
        return array.cast(pa.string()), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        values = array.to_pylist()
    texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
    bad = [text is not None and value != text.encode() for value, text in zip(values, texts, strict=True)]
    return pa.array(texts, pa.string()), np.array(bad)
