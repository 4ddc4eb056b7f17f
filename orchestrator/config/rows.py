"""A first look at data files: are they there, and do they have the columns that a task names?"""

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
SUFFIXES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
}


def file_format(name: str) -> str | None:
    """What a file holds, by its suffix: ``parquet``, ``csv``, ``jsonl``, ``arrow``, or ``None``."""
    kind = SUFFIXES.get(Path(name.lower().removesuffix(".gz")).suffix)
    return None if name.lower().endswith(".gz") and kind not in ("csv", "jsonl") else kind


def missing_column(column: str, present: Sequence[str], file: str) -> str:
    """The message for a column that is not there."""
    hint = did_you_mean(column, present, "columns")
    listed = f" (columns: {', '.join(present)})" if hint.startswith("did") else f" ({hint})"
    return f'column "{column}" is not in {file}' + (f"; {hint}" if hint.startswith("did") else "") + listed


def row_problems(
    files: Mapping[Key, str], columns: Mapping[Key, Sequence[str]], encoding: str, context: Mapping[str, Any] | None
) -> list[tuple[Key, str]]:
    """What is wrong with a task's files, as far as a look at their beginning tells.

    Files behind a URI are left for later: asking a network belongs to the sweep, not to its configuration.

    Args:
        files: references by key path.
        columns: names of columns by key path.
        encoding: of csv files.
        context: ``base`` is the folder that relative paths start from; without it no file is looked at.
    """
    problems: list[tuple[Key, str]] = (
        [] if _known(encoding) else [(("encoding",), f"{encoding!r} is no encoding that Python knows")]
    )
    for key, reference in files.items():
        if file_format(reference) is None:
            problems.append((key, f"{reference!r} must end in {', '.join(SUFFIXES)} (or .csv.gz, .jsonl.gz)"))
    if context is not None and not problems:
        for key, reference in files.items():
            problems += _look(key, reference, columns, encoding, context["base"])
    return problems


def _look(
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
        present = column_names(path, encoding)
    except (OSError, ValueError) as error:
        return [(key, f"{path.name} cannot be read as {file_format(reference)}: {str(error).splitlines()[0]}")]
    wanted = [(where, column) for where, names in columns.items() for column in names]
    return [(where, missing_column(name, present, path.name)) for where, name in wanted if name not in present]


def column_names(path: Path, encoding: str = "utf-8") -> list[str]:
    """The columns of a local file, from its schema or its first block.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not what its suffix says (pyarrow's errors are such).
    """
    return list(_schema(path, encoding).names)


def _schema(path: Path, encoding: str) -> pa.Schema:
    import pyarrow as pa

    kind = file_format(path.name)
    if kind == "parquet":
        import pyarrow.parquet as pq

        return pq.read_schema(path)
    with pa.input_stream(str(path)) as stream:
        if kind == "csv":
            from pyarrow import csv

            # Everything is read as bytes: whether it can be decoded is for the reader of the rows to say.
            read = csv.ReadOptions(encoding=encoding, use_threads=False)
            parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
            return csv.open_csv(stream, read_options=read, parse_options=parse).schema
        if kind == "jsonl":
            from pyarrow import json

            return json.open_json(stream).schema
    with pa.memory_map(str(path)) as file:
        return open_arrow(file).schema


def open_arrow(file: Any) -> Any:
    """A reader of an Arrow file in either form, the one for files or the one for streams."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


def _known(encoding: str) -> bool:
    try:
        codecs.lookup(encoding)
    except LookupError:
        return False
    return True
