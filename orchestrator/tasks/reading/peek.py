"""What the first rows of a file hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.tasks.column_readings import to_objects, to_texts
from orchestrator.tasks.column_types import kind_of
from orchestrator.tasks.layouts import Look
from orchestrator.tasks.reading.locate import locate
from orchestrator.tasks.reading.open import open_source, reading
from orchestrator.tasks.reading.source import ROWS

WORDS = 3
"""Words that a text has at least, in one of the first rows; a code has fewer in all."""


@dataclass(frozen=True)
class Beginning:
    """The first rows of a file.

    Args:
        columns: Values by column, in the file's order.
        looks: What each column holds.
        is_whole: Whether these are all rows.
    """

    columns: Mapping[str, pa.Array]
    looks: Mapping[str, Look]
    is_whole: bool


def peek(reference: str, base: Path, encoding: str = "utf-8", rows: int = ROWS) -> Beginning:
    """Read the first rows of the first file of a reference.

    Raises:
        InputError: If there is no such file, or its beginning cannot be read.
    """
    files = locate(reference, base)
    with reading(files[0], encoding):
        source = open_source(files[0], encoding)
        names = [name for name in source.names if name and source.names.count(name) == 1]
        batches = source.batches(names, rows)
        first, second = next(batches, None), next(batches, None)
    columns = {name: first.columns[name].slice(0, rows) for name in names} if first else {}
    looks = {name: look_of(values) for name, values in columns.items()}
    return Beginning(columns, looks, second is None and len(files) == 1)


def look_of(values: pa.Array) -> Look:
    """Return what a column's values look like."""
    kind = kind_of(values.type)
    if kind == "number":
        return "integer" if _all(values.drop_null().to_pylist(), _is_integer) else "number"
    if kind == "boolean":
        return "code"
    if kind == "text":
        return _look_of_texts(values)
    if kind in ("list", "json"):
        return _look_of_objects([value for value in to_objects(values)[0] if value is not None])
    return kind if kind in ("time", "object") else "nothing"


def _look_of_texts(values: pa.Array) -> Look:
    texts = [text for text in to_texts(values)[0].to_pylist() if text and not text.isspace()]
    if not texts:
        return "nothing"
    if _all(texts, _is_integer):
        return "integer"
    if _all(texts, _is_number):
        return "number"
    if _all(texts, lambda text: text.lstrip().startswith(("[", "{"))):
        objects, refusals = to_objects(values)
        if not refusals:
            return _look_of_objects([value for value in objects if value is not None])
    return "text" if any(len(text.split()) >= WORDS for text in texts) else "code"


def _look_of_objects(values: list[Any]) -> Look:
    if _all(values, lambda value: isinstance(value, dict)):
        return "object"
    if _all(values, lambda value: isinstance(value, list)):
        items = [item for value in values for item in value]
        return "objects" if items and _all(items, lambda item: isinstance(item, dict)) else "texts"
    if any(isinstance(value, str) and len(value.split()) >= WORDS for value in values):
        return "text"
    return "code" if values else "nothing"


def _all(values: list[Any], check: Any) -> bool:
    return bool(values) and all(check(value) for value in values)


def _is_integer(value: Any) -> bool:
    try:
        return float(value).is_integer() and not (isinstance(value, str) and "." in value)
    except (ValueError, OverflowError):
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
