"""The formats of data files, and a check of a file's beginning: does it exist, and has it the columns of a task?"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import local_path

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[str, ...]
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Formats by suffix."""


def file_format(name: str) -> str | None:
    """Return a file's format by its suffix: ``parquet``, ``csv``, ``jsonl``, ``arrow``, or ``None``."""
    file_type = FORMATS.get(Path(name.lower().removesuffix(".gz")).suffix)
    return None if name.lower().endswith(".gz") and file_type not in ("csv", "jsonl") else file_type


def missing_column(column: str, columns: Sequence[str], file: str) -> str:
    """Return the message for a column that a file lacks."""
    hint = did_you_mean(column, columns, "columns")
    if hint.startswith("did"):
        return f'column "{column}" is not in {file}; {hint} (columns: {", ".join(columns)})'
    return f'column "{column}" is not in {file} ({hint})'


def header_problems(
    files: Mapping[Key, str], columns: Mapping[Key, Sequence[str]], encoding: str, context: Mapping[str, Any] | None
) -> list[tuple[Key, str]]:
    """Return what is wrong with a task's files, as far as their beginnings show it.

    Files behind a URI are not read: a configuration is checked without the network.

    Args:
        files: References by key path.
        columns: Names of columns by key path.
        encoding: Text encoding of csv files.
        context: With the folder that relative paths start from as ``base``; without a context no file is read.
    """
    problems: list[tuple[Key, str]] = []
    if not _is_encoding(encoding):
        problems.append((("encoding",), f"{encoding!r} is not an encoding that Python knows"))
    for key, reference in files.items():
        if file_format(reference) is None:
            problems.append((key, f"{reference!r} must end in {', '.join(FORMATS)} (or .csv.gz, .jsonl.gz)"))
    if context is not None and not problems:
        for key, reference in files.items():
            problems += _file_problems(key, reference, columns, encoding, context["base"])
    return problems


def _file_problems(
    key: Key, reference: str, columns: Mapping[Key, Sequence[str]], encoding: str, base: Path
) -> list[tuple[Key, str]]:
    try:
        path = local_path(reference, base)
    except InputError as error:
        return [(key, f"{reference}: {error.problems[0].message}")]
    if path is None:
        return []
    if not path.is_file():
        return [(key, f"there is no file {path}")]
    try:
        header = column_names(path, encoding)
    except (OSError, ValueError) as error:
        return [(key, f"{path.name} cannot be read as {file_format(reference)}: {str(error).splitlines()[0]}")]
    named = [(column_key, name) for column_key, names in columns.items() for name in names]
    return [(column_key, missing_column(name, header, path.name)) for column_key, name in named if name not in header]


def column_names(path: Path, encoding: str = "utf-8") -> list[str]:
    """Return the columns of a local file, from its schema or its first block.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not of the format that its suffix names; pyarrow's errors are subclasses.
    """
    return list(_schema(path, encoding).names)


def _schema(path: Path, encoding: str) -> pa.Schema:
    import pyarrow as pa

    file_type = file_format(path.name)
    if file_type == "parquet":
        import pyarrow.parquet as pq

        return pq.read_schema(path)
    with pa.input_stream(str(path)) as stream:
        if file_type == "csv":
            from pyarrow import csv

            # Rows that cannot be parsed are skipped: read_rows reports them, each with its number.
            read = csv.ReadOptions(encoding=encoding, use_threads=False)
            parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
            return csv.open_csv(stream, read_options=read, parse_options=parse).schema
        if file_type == "jsonl":
            from pyarrow import json

            return json.open_json(stream).schema
    with pa.memory_map(str(path)) as file:
        return open_arrow(file).schema


def open_arrow(file: Any) -> Any:
    """Return a reader of an Arrow file in either of its two formats, for files or for streams."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True
