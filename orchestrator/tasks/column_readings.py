"""What a column's values become: texts, numbers, lists of texts, or Python's own objects."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.jsonl import is_unicode, json_problem
from orchestrator.tasks.column_types import PLURALS, Mask, any_of, flags, kind_of, plain

Refusals = list[tuple[Mask, str]]
"""Rows that cannot be used, and why."""
NOT_UTF8 = "is not UTF-8"


def to_texts(array: pa.Array) -> tuple[pa.Array, Refusals]:
    """Return a column's values as texts, null where there is none.

    Whole numbers are written without a point, also where a gap made them floats, as pandas does.

    Raises:
        ValueError: If the column holds lists or objects.
    """
    kind = kind_of(array.type)
    if kind in ("list", "object"):
        raise ValueError(f"holds {PLURALS[kind]}; write texts")
    if kind == "text":
        return _decoded(array)
    if kind == "json":
        texts, refusals = _converted(array.storage.to_pylist(), lambda text: _text(_loads(text)), pa.string())
        if len(refusals) == 1 and refusals[0][0].all():
            raise ValueError(f"{refusals[0][1]} in every row")
        return texts, refusals
    if pa.types.is_floating(array.type):
        refusals = _not_finite(array)
        is_refused = any_of([mask for mask, _ in refusals], len(array))
        array = pc.if_else(pa.array(is_refused), pa.scalar(None, array.type), array)
        is_whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), 2.0**53))
        if flags(is_whole, null=True).all():
            array = array.cast(pa.int64())
        return array.cast(pa.string()), refusals
    return array.cast(pa.string()), []


def to_numbers(array: pa.Array) -> tuple[pa.Array, Refusals]:
    """Return a column's values as float64, null where there is none; texts are read as Python reads numbers.

    Raises:
        ValueError: If the column holds neither numbers nor texts.
    """
    kind = kind_of(array.type)
    if kind not in ("number", "text", "json", "nothing"):
        raise ValueError(f"holds {PLURALS[kind]}; write numbers")
    if kind in ("number", "nothing"):
        numbers = array.cast(pa.float64(), safe=False)
        return numbers, _not_finite(numbers)
    texts, refusals = to_texts(array)
    numbers, more = _converted(texts.to_pylist(), _number, pa.float64())
    return numbers, [*refusals, *more]


def to_text_lists(array: pa.Array) -> tuple[pa.Array, Refusals]:
    """Return a column's values as lists of texts; a list in a text is written as JSON or as Python writes it.

    Raises:
        ValueError: If the column holds neither lists nor texts, or lists of lists.
    """
    kind = kind_of(array.type)
    if kind == "list":
        texts, refusals = to_texts(plain(array.flatten()))
        sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), texts, mask=array.is_null())
        row_of_text = np.repeat(np.arange(len(array)), sizes)
        is_refused = any_of([mask for mask, _ in refusals], len(texts))
        refusals = [*refusals, (flags(texts.is_null(), null=True) & ~is_refused, "is null")]
        rows = [(_mask(row_of_text[mask].tolist(), len(array)), message) for mask, message in refusals]
        return lists, [(mask, f"holds a value that {message}") for mask, message in rows if mask.any()]
    if kind not in ("text", "json", "nothing"):
        raise ValueError(f"holds {PLURALS[kind]}; write lists")
    objects, refusals = to_objects(array)
    lists, more = _converted(objects, _texts, pa.list_(pa.string()))
    return lists, [*refusals, *more]


def to_json_lists(array: pa.Array) -> pa.Array | None:
    """Return a column of JSON with lists in the place of single values; ``None`` if it holds no list."""
    if kind_of(array.type) != "json":
        return None
    stored = array.storage.to_pylist()
    if not any(text is not None and text.startswith("[") for text in stored):
        return None
    lists = [text if text is None or text.startswith("[") else f"[{text}]" for text in stored]
    return pa.ExtensionArray.from_storage(array.type, pa.array(lists, pa.string()))


def to_objects(array: pa.Array) -> tuple[list[Any], Refusals]:
    """Return a column's values as Python's objects, whatever format the file has.

    Objects have no keys whose value is null: Arrow gives all objects of a column the same keys. A text that begins
    with a bracket is read as JSON, or as Python writes lists and dictionaries.
    """
    kind = kind_of(array.type)
    if kind == "json":
        return _mapped(array.storage.to_pylist(), _loads)
    if kind == "text":
        texts, refusals = _decoded(array)
        objects, more = _mapped(texts.to_pylist(), _parsed)
        return objects, [*refusals, *more]
    try:
        return [_without_nulls(value) for value in array.to_pylist(maps_as_pydicts="strict")], []
    except KeyError:  # of a map that has a key twice
        return _mapped(list(array), _as_object)


def _as_object(value: pa.Scalar) -> Any:
    try:
        return _without_nulls(value.as_py(maps_as_pydicts="strict"))
    except KeyError:
        raise ValueError("has a key twice") from None


def _decoded(array: pa.Array) -> tuple[pa.Array, Refusals]:
    try:
        return array.cast(pa.string()), []
    except pa.ArrowInvalid:
        values = array.to_pylist()
    texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
    bad = [text is not None and value != text.encode() for value, text in zip(values, texts, strict=True)]
    return pa.array(texts, pa.string()), [(np.array(bad), NOT_UTF8)]


def _not_finite(numbers: pa.Array) -> Refusals:
    checks = ((pc.is_nan, "is NaN"), (pc.is_inf, "is infinite"))
    masks = [(flags(check(numbers), null=False), message) for check, message in checks]
    return [(mask, message) for mask, message in masks if mask.any()]


def _mapped(values: list[Any], function: Callable[[Any], Any]) -> tuple[list[Any], Refusals]:
    """Apply a function to all values but ``None``; a ``ValueError`` refuses the value."""
    results: list[Any] = []
    messages: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        try:
            results.append(None if value is None else function(value))
        except ValueError as error:
            results.append(None)
            messages.setdefault(str(error), []).append(index)
    return results, [(_mask(indices, len(values)), message) for message, indices in messages.items()]


def _converted(values: list[Any], function: Callable[[Any], Any], value_type: pa.DataType) -> tuple[pa.Array, Refusals]:
    results, refusals = _mapped(values, function)
    return pa.array(results, value_type), refusals


def _mask(indices: list[int], size: int) -> Mask:
    mask = np.zeros(size, bool)
    mask[indices] = True
    return mask


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        raise ValueError(f"is {'a list' if isinstance(value, list) else 'an object'}; write a text")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        _number(value)
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    return str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and not value.strip():
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{_short(value)} is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is NaN" if math.isnan(number) else "is infinite")
    return number


def _texts(value: Any) -> list[str] | None:
    if isinstance(value, str) and not value.strip():
        return None
    if not isinstance(value, list):
        raise ValueError(f'{_short(value)} is not a list; write one as JSON, as in ["a", "b"]')
    if None in value:
        raise ValueError("holds a value that is null")
    try:
        return [_text(item) for item in value]
    except ValueError as error:
        raise ValueError(f"holds a value that {error}") from None


def _parsed(text: str) -> Any:
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        problem = json_problem(error)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(problem) from None


def _loads(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is no JSON, or holds half of a surrogate pair, which JSON can write and no text can hold.
    """
    value = json.loads(text)
    if "\\u" in text and not is_unicode(value):
        raise ValueError(f"{NOT_UTF8} (it holds half of a surrogate pair)")
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return repr(text if len(text) <= 40 else text[:39] + "…")
