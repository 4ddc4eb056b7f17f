"""Rows of one file, wherever it lies: parquet, csv, jsonl or arrow."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.common.uris import mask_secrets, open_location
from orchestrator.config.rows import file_format, missing_column, open_arrow


@dataclass(frozen=True)
class Rows:
    """What a file holds.

    Args:
        file: its name, as errors give it.
        table: the columns that were asked for, and ``row`` (int64): the row's number in the file, from 1 on.
        broken: rows that are no rows: pairs of a row's number and what is wrong.
    """

    file: str
    table: pa.Table
    broken: list[tuple[int, str]] = field(default_factory=list)


def read_rows(
    reference: str, base: Path, columns: dict[str, list[str]], texts: Collection[str], encoding: str = "utf-8"
) -> Rows:
    """Read a file's columns.

    Args:
        reference: a path, a URI, or ``package:NAME/SUBPATH``.
        base: the folder that relative paths start from.
        columns: what to read, by the key path that names it.
        texts: columns whose values stay as they are written, never taken for numbers or dates.
        encoding: of a csv file.

    Raises:
        InputError: if the file is not there, is not what its suffix says, or lacks a column.
    """
    filesystem, path = open_location(reference, base)
    name = PurePosixPath(reference).name
    try:
        present, table, broken = _READERS[file_format(name) or "csv"](filesystem, path, columns, texts, encoding)
    except FileNotFoundError as error:
        raise InputError(mask_secrets(reference), [Problem("", "there is no such file")]) from error
    except (OSError, ValueError) as error:
        raise InputError(name, [Problem("", _unreadable(error, file_format(name), encoding))]) from error
    _require(columns, present, name)
    numbers = np.arange(1, table.num_rows + len(broken) + 1)
    numbers = np.delete(numbers, [row - 1 for row, _ in broken])
    return Rows(name, table.append_column("row", pa.array(numbers, pa.int64())), broken)


Read = tuple[Sequence[str], pa.Table, list[tuple[int, str]]]


def _read_parquet(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    import pyarrow.parquet as pq

    with fs.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        present = parquet.schema_arrow.names
        return present, parquet.read(columns=_wanted(columns, present)), []


def _read_arrow(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    with fs.open_input_file(path) as file:
        table = open_arrow(file).read_all()
    return table.column_names, table.select(_wanted(columns, table.column_names)), []


def _read_csv(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    from pyarrow import csv

    broken: list[tuple[int, str]] = []

    def note(row: Any) -> str:
        fields = f"{row.actual_columns} field{'s' * (row.actual_columns != 1)}"
        broken.append((row.number - 1, f"has {fields} where the header has {row.expected_columns}"))
        return "skip"

    read = csv.ReadOptions(encoding=encoding, use_threads=False)  # only one thread counts rows
    parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note)
    with fs.open_input_stream(path, compression="detect") as stream:
        # As bytes: text that cannot be decoded is reported by row, and "NA" stays a text.
        convert = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.binary()))
        table = csv.read_csv(stream, read, parse, convert)
    return table.column_names, table.select(_wanted(columns, table.column_names)), broken


def _read_jsonl(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    from pyarrow import json as arrow_json

    with fs.open_input_stream(path, compression="detect") as stream:
        data = stream.read()
    try:
        table = arrow_json.read_json(pa.BufferReader(data))
        strings = [(name, pa.binary()) for name in texts if name in table.column_names and _may_be_text(table, name)]
        if any(pa.types.is_temporal(table.schema.field(name).type) for name, _ in strings):
            options = arrow_json.ParseOptions(explicit_schema=pa.schema(strings))
            table = arrow_json.read_json(pa.BufferReader(data), parse_options=options)
    except pa.ArrowInvalid as error:
        raise ValueError(_first_bad_line(data) or str(error)) from error
    return table.column_names, table.select(_wanted(columns, table.column_names)), []


def _may_be_text(table: pa.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    return bool(pa.types.is_string(kind) or pa.types.is_temporal(kind))


def _first_bad_line(data: bytes) -> str:
    """Which line of a jsonl file is none, told by line since Arrow counts within its blocks."""
    kinds: dict[str, tuple[type, int]] = {}
    for number, line in enumerate(filter(str.strip, data.decode("utf-8", "replace").splitlines()), start=1):
        try:
            values = json.loads(line)
        except ValueError:
            return f"row {number} is not JSON"
        if not isinstance(values, dict):
            return f"row {number} is no JSON object"
        for name, value in values.items():
            kind, first = kinds.setdefault(name, (type(value), number)) if value is not None else (type(None), 0)
            if value is not None and kind is not type(value) and {kind, type(value)} != {int, float}:
                return f"row {number} has another kind of value in column {name} than row {first}"
    return ""


_READERS = {"parquet": _read_parquet, "arrow": _read_arrow, "csv": _read_csv, "jsonl": _read_jsonl}


def _wanted(columns: dict[str, list[str]], present: Sequence[str]) -> list[str]:
    """The columns to read that are there, each once."""
    return [name for name in dict.fromkeys(name for names in columns.values() for name in names) if name in present]


def _require(columns: dict[str, list[str]], present: Sequence[str], file: str) -> None:
    missing = [(key, name) for key, names in columns.items() for name in names if name not in present]
    if missing:
        raise InputError(file, [Problem(key, missing_column(name, present, file)) for key, name in missing])


def _unreadable(error: Exception, kind: str | None, encoding: str) -> str:
    if isinstance(error, UnicodeError):
        return f"cannot be decoded as {encoding} ({error.reason if isinstance(error, UnicodeDecodeError) else error})"
    return f"cannot be read as {kind}: {first_line(error)}"
