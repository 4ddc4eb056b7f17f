"""Rows of one file, local or behind a URI: parquet, csv, jsonl or arrow."""

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
from orchestrator.tasks.file_headers import file_format, missing_column, open_arrow


@dataclass(frozen=True)
class Rows:
    """The rows of a file.

    Args:
        file: Name of the file, for errors.
        table: The columns to read, and ``row`` (int64): the row's number in the file, from 1 on.
        broken: Pairs of number and message of the rows that cannot be parsed.
    """

    file: str
    table: pa.Table
    broken: list[tuple[int, str]] = field(default_factory=list)


def read_rows(
    reference: str, base: Path, columns: dict[str, list[str]], texts: Collection[str], encoding: str = "utf-8"
) -> Rows:
    """Read a file's columns.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        base: The folder that relative paths start from.
        columns: Names of the columns to read, by the key path that names them; those of the empty key may be missing.
        texts: Columns whose values stay as they are written, never parsed as numbers or dates.
        encoding: Text encoding of a csv file.

    Raises:
        InputError: If the file does not exist, is not of the format that its suffix names, or lacks a column.
    """
    filesystem, path = open_location(reference, base)
    name = PurePosixPath(reference).name
    try:
        header, table, broken = _READERS[file_format(name) or "csv"](filesystem, path, columns, texts, encoding)
    except FileNotFoundError as error:
        raise InputError(mask_secrets(reference), [Problem("", "there is no such file")]) from error
    except (OSError, ValueError) as error:
        raise InputError(name, [Problem("", _unreadable(error, file_format(name), encoding))]) from error
    _require_columns(columns, header, name)
    numbers = np.arange(1, table.num_rows + len(broken) + 1)
    numbers = np.delete(numbers, [row - 1 for row, _ in broken])
    return Rows(name, table.append_column("row", pa.array(numbers, pa.int64())), broken)


Read = tuple[Sequence[str], pa.Table, list[tuple[int, str]]]
"""The names of all columns, the table of the columns to read, and the broken rows."""


def _read_parquet(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    import pyarrow.parquet as pq

    with fs.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        header = parquet.schema_arrow.names
        return header, parquet.read(columns=_columns_to_read(columns, header)), []


def _read_arrow(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    with fs.open_input_file(path) as file:
        table = open_arrow(file).read_all()
    return table.column_names, table.select(_columns_to_read(columns, table.column_names)), []


def _read_csv(fs: Any, path: str, columns: dict[str, list[str]], texts: Collection[str], encoding: str) -> Read:
    from pyarrow import csv

    broken: list[tuple[int, str]] = []

    def record_broken(row: Any) -> str:
        fields = f"{row.actual_columns} field{'s' * (row.actual_columns != 1)}"
        broken.append((row.number - 1, f"has {fields} where the header has {row.expected_columns}"))
        return "skip"

    read = csv.ReadOptions(encoding=encoding, use_threads=False)  # with threads, pyarrow gives broken rows no number
    parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=record_broken)
    with fs.open_input_stream(path, compression="detect") as stream:
        # As bytes: text that cannot be decoded is reported by row, and "NA" stays a text.
        convert = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.binary()))
        table = csv.read_csv(stream, read, parse, convert)
    return table.column_names, table.select(_columns_to_read(columns, table.column_names)), broken


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
    return table.column_names, table.select(_columns_to_read(columns, table.column_names)), []


def _may_be_text(table: pa.Table, name: str) -> bool:
    value_type = table.schema.field(name).type
    return bool(pa.types.is_string(value_type) or pa.types.is_temporal(value_type))


def _first_bad_line(data: bytes) -> str:
    """Return what is wrong with a jsonl file, with the row's number: Arrow's own errors count rows within a block."""
    first_types: dict[str, tuple[type, int]] = {}
    for number, line in enumerate(filter(str.strip, data.decode("utf-8", "replace").splitlines()), start=1):
        try:
            values = json.loads(line)
        except ValueError:
            return f"row {number} is not JSON"
        if not isinstance(values, dict):
            return f"row {number} is not a JSON object"
        for name, value in values.items():
            if value is None:
                continue
            first_type, first = first_types.setdefault(name, (type(value), number))
            if first_type is not type(value) and {first_type, type(value)} != {int, float}:
                return f"row {number} has another type of value in column {name} than row {first}"
    return ""


_READERS = {"parquet": _read_parquet, "arrow": _read_arrow, "csv": _read_csv, "jsonl": _read_jsonl}


def _columns_to_read(columns: dict[str, list[str]], header: Sequence[str]) -> list[str]:
    """Return the columns to read that the file has, each once."""
    return [name for name in dict.fromkeys(name for names in columns.values() for name in names) if name in header]


def _require_columns(columns: dict[str, list[str]], header: Sequence[str], file: str) -> None:
    missing = [(key, name) for key, names in columns.items() for name in names if key and name not in header]
    if missing:
        raise InputError(file, [Problem(key, missing_column(name, header, file)) for key, name in missing])


def _unreadable(error: Exception, file_type: str | None, encoding: str) -> str:
    if isinstance(error, UnicodeError):
        return f"cannot be decoded as {encoding} ({error.reason if isinstance(error, UnicodeDecodeError) else error})"
    return f"cannot be read as {file_type}: {first_line(error)}"
