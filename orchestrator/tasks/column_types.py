"""The types of columns: what they hold, and one array of the parts or values that a file gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Kind = Literal["nothing", "text", "number", "boolean", "time", "list", "object", "json"]

PLURALS: dict[Kind, str] = {
    "nothing": "no values",
    "text": "texts",
    "number": "numbers",
    "boolean": "true and false",
    "time": "dates or times",
    "list": "lists",
    "object": "objects",
    "json": "values of several types",
}
"""What a column of each kind holds, in messages."""


def kind_of(value_type: pa.DataType) -> Kind:
    """Return what a column of an Arrow type holds; the one place that knows Arrow's types.

    ``json`` is a column of a JSON file whose values differ in type or are nested, each kept as its JSON text.
    """
    types = pa.types
    if isinstance(value_type, pa.JsonType):
        return "json"
    if isinstance(value_type, pa.BaseExtensionType):
        return kind_of(value_type.storage_type)
    if types.is_dictionary(value_type) or types.is_run_end_encoded(value_type):
        return kind_of(value_type.value_type)
    if types.is_null(value_type):
        return "nothing"
    if types.is_boolean(value_type):
        return "boolean"
    if types.is_integer(value_type) or types.is_floating(value_type) or types.is_decimal(value_type):
        return "number"
    if types.is_temporal(value_type):
        return "time"
    if types.is_struct(value_type) or types.is_map(value_type) or types.is_union(value_type):
        return "object"
    return "list" if types.is_nested(value_type) else "text"


def plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array without encodings, views or extensions, except that of JSON."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, pa.ChunkedArray):  # more than 2 GB
        raise ValueError("a column of more than 2 GB of text cannot be read")
    kind = kind_of(array.type)
    if isinstance(array.type, pa.BaseExtensionType) and kind != "json":
        return plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(array.type):
        return plain(pc.run_end_decode(array))
    if kind == "text":
        return array.cast(pa.binary())
    return array.cast(pa.list_(array.type.value_type)) if kind == "list" else array


def to_array(values: list[Any]) -> pa.Array:
    """Return Python's objects as an array: of texts, numbers or booleans if all are, else of JSON texts.

    A text with half of a surrogate pair, which JSON can hold, becomes bytes that are not UTF-8.
    """
    types = {type(value) for value in values} - {type(None)}
    if types <= {str}:
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:
            pass
        encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return pa.array(encoded, pa.binary())
    if types in ({int}, {bool}, {float}, {int, float}):
        try:
            return pa.array(values, pa.float64() if float in types else None)
        except (pa.ArrowInvalid, OverflowError):
            pass  # a whole number that 64 bits do not hold, or a float does not hold exactly
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def unify(chunks: list[pa.Array]) -> pa.ChunkedArray:
    """Return parts of a column as one: of the type that they share, or of what Python's objects need together."""
    parts = [chunk for chunk in chunks if kind_of(chunk.type) != "nothing"]
    types = {part.type for part in parts}
    if types <= {pa.string(), pa.binary()} and len(types) == 2:
        types = {pa.binary()}
    if len(types) > 1:
        return pa.chunked_array([to_array([value for chunk in chunks for value in _stored(chunk)])])
    value_type = next(iter(types), pa.null())
    return pa.chunked_array([chunk.cast(value_type) for chunk in chunks], value_type)


def _stored(array: pa.Array) -> list[Any]:
    values = array.storage.to_pylist() if kind_of(array.type) == "json" else array.to_pylist()
    if kind_of(array.type) == "json":
        return [None if value is None else json.loads(value) for value in values]
    return [_surrogates(value) if isinstance(value, bytes) else value for value in values]


def _surrogates(value: bytes) -> str:
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return value.decode("utf-8", "surrogateescape")


def flags(values: pa.Array, null: bool) -> Mask:
    """Return a boolean array as numpy, with ``null`` in place of null."""
    array: Mask = pc.fill_null(values, null).to_numpy(zero_copy_only=False).astype(bool)
    return array


def any_of(masks: Sequence[Mask], size: int) -> Mask:
    """Return the rows that are in one of the masks."""
    rows: Mask = np.logical_or.reduce([np.zeros(size, bool), *masks])
    return rows
