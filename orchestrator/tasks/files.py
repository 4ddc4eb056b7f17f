"""Rows of one file or of many, local or behind a URI."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.uris import mask_secrets
from orchestrator.tasks.column_types import unify
from orchestrator.tasks.faults import DataName
from orchestrator.tasks.file_headers import column_problem
from orchestrator.tasks.reading.locate import locate
from orchestrator.tasks.reading.open import open_source, reading


@dataclass(frozen=True)
class Rows:
    """The rows of a split's files.

    Args:
        file: Name of the file, or of the folder or pattern, for errors.
        columns: Values by column.
        numbers: Number of each row, counted through all files from 1 on.
        broken: Pairs of number and message of the rows that cannot be parsed.
    """

    file: DataName
    columns: Mapping[str, pa.ChunkedArray]
    numbers: NDArray[np.int64]
    broken: list[tuple[int, str]] = field(default_factory=list)


def read_rows(
    reference: str, base: Path, columns: dict[str, list[str]], optional: Collection[str] = (), encoding: str = "utf-8"
) -> Rows:
    """Read columns of a file, or of all files of a folder or pattern; other columns are not parsed.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        base: The folder that relative paths start from.
        columns: Names of the columns to read, by the key path that names them.
        optional: Names of columns to read where a file has them.
        encoding: Text encoding of csv files.

    Raises:
        InputError: If there is no such file, or one is not of the format that its suffix names, or lacks a column.
    """
    files = locate(reference, base)
    names = list(dict.fromkeys([*(name for names in columns.values() for name in names), *optional]))
    chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
    numbers: list[NDArray[np.int64]] = []
    broken: list[tuple[int, str]] = []
    starts: list[tuple[int, str]] = []
    count = 0
    for file in files:
        start = count
        starts.append((start + 1, file.name))
        with reading(file, encoding):
            source = open_source(file, encoding)
            for batch in source.batches(names):
                for name in names:
                    chunks[name].append(batch.columns.get(name, pa.nulls(len(batch.numbers))))
                numbers.append(batch.numbers + start)
                broken += [(number + start, message) for number, message in batch.broken]
                count += len(batch.numbers) + len(batch.broken)
        _require_columns(columns, optional, source.names, file.name)
    shown = files[0].name if len(files) == 1 else PurePosixPath(mask_secrets(reference)).name
    name = DataName(shown, starts * (len(files) > 1))
    rows = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
    return Rows(name, {name: unify(parts) for name, parts in chunks.items()}, rows, broken)


def _require_columns(
    columns: dict[str, list[str]], optional: Collection[str], header: Sequence[str], file: str
) -> None:
    named = [(key, name) for key, names in columns.items() for name in names]
    named += [("", name) for name in optional if name in header]
    problems = [(key, column_problem(name, header, file)) for key, name in named]
    if missing := [Problem(key, message) for key, message in problems if message]:
        raise InputError(file, missing)
