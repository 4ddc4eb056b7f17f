"""Rows of one file or of many, local or behind a URI."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from orchestrator.tasks.reading.source import Batch


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


def read_parts(
    reference: str,
    base: Path,
    columns: dict[str, list[str]],
    optional: Collection[str] = (),
    encoding: str = "utf-8",
    part_bytes: float = math.inf,
) -> Iterator[Rows]:
    """Read columns of a file, or of all files of a folder or pattern, part by part; other columns are not parsed.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        base: The folder that relative paths start from.
        columns: Names of the columns to read, by the key path that names them.
        optional: Names of columns to read where a file has them.
        encoding: Text encoding of csv files.
        part_bytes: Bytes of values after which a part ends.

    Yields:
        At least one part. All rows of a small file are in one, and are checked before it is yielded.

    Raises:
        InputError: If there is no such file, or one is not of the format that its suffix names, or lacks a column.
    """
    files = locate(reference, base)
    shown = files[0].name if len(files) == 1 else PurePosixPath(mask_secrets(reference)).name
    names = list(dict.fromkeys([*(name for names in columns.values() for name in names), *optional]))
    part = _Part(names)
    starts: list[tuple[int, str]] = []
    count = 0
    for file in files:
        start = count
        starts.append((start + 1, file.name))
        with reading(file, encoding):
            source = open_source(file, encoding)
            for batch in source.batches(names):
                if part.size >= part_bytes:
                    yield part.take_rows(DataName(shown, starts * (len(files) > 1)))
                part.add(batch, start)
                count += len(batch.numbers) + len(batch.broken)
        _require_columns(columns, optional, source.names, file.name)
    yield part.take_rows(DataName(shown, starts * (len(files) > 1)))


class _Part:
    """Batches that become one part.

    Args:
        names: Names of the columns.

    Attributes:
        size: Bytes of their values.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._begin()

    def _begin(self) -> None:
        self._chunks: dict[str, list[pa.Array]] = {name: [] for name in self._names}
        self._numbers: list[NDArray[np.int64]] = []
        self._broken: list[tuple[int, str]] = []
        self.size = 0

    def add(self, batch: Batch, start: int) -> None:
        """Add a batch of a file whose first row is the one after ``start``."""
        for name, chunks in self._chunks.items():
            chunks.append(batch.columns.get(name, pa.nulls(len(batch.numbers))))
            self.size += chunks[-1].nbytes
        self._numbers.append(batch.numbers + start)
        self._broken += [(number + start, message) for number, message in batch.broken]

    def take_rows(self, name: DataName) -> Rows:
        """Return the rows and begin another part, so that nothing holds them here any more."""
        numbers = np.concatenate(self._numbers) if self._numbers else np.zeros(0, np.int64)
        rows = Rows(name, {name: unify(parts) for name, parts in self._chunks.items()}, numbers, self._broken)
        self._begin()
        return rows


def _require_columns(
    columns: dict[str, list[str]], optional: Collection[str], header: Sequence[str], file: str
) -> None:
    named = [(key, name) for key, names in columns.items() for name in names]
    named += [("", name) for name in optional if name in header]
    problems = [(key, column_problem(name, header, file)) for key, name in named]
    if missing := [Problem(key, message) for key, message in problems if message]:
        raise InputError(file, missing)
