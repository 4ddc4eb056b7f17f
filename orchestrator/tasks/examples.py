"""From a file's rows to a split table's columns: texts with labels, or prompts with completions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_readings import NOT_UTF8
from orchestrator.tasks.column_types import Mask
from orchestrator.tasks.columns import Column
from orchestrator.tasks.faults import DataName, Faults
from orchestrator.tasks.files import Rows, read_parts
from orchestrator.tasks.filters import matching_rows
from orchestrator.tasks.layouts import Look
from orchestrator.tasks.mapped import PART_BYTES, Joined
from orchestrator.tasks.reading.peek import look_of
from orchestrator.tasks.reading.source import split_suffix
from orchestrator.tasks.section import TaskSection

LOOKED_AT = 256
"""Rows by which a column's looks are told."""


@dataclass(frozen=True)
class Examples:
    """The usable rows of a split's files.

    Args:
        file: What messages call them.
        table: ``row`` and the columns of :meth:`TaskSection.contents`.
        dropped: How many rows could not be used.
        looks: What each column of the file holds.
    """

    file: DataName
    table: pa.Table
    dropped: int
    looks: Mapping[str, Look]


def read_examples(reference: str, config: TaskSection, base: Path, key: str) -> Examples:
    """Read the usable rows of one file, part by part where it is large.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        config: The task's section of the configuration.
        base: The folder that relative paths start from.
        key: Key path of the task, for errors.

    Raises:
        InputError: If a row cannot be used and the task does not drop such rows, or no row is left.
    """
    columns = {f"{key}.{'.'.join(path)}": names for path, names in config.columns().items()}
    optional = [name for name in _content(config) if name in config.optional_columns()]

    def read(part_bytes: float) -> Examples:
        return _join(read_parts(reference, base, columns, optional, config.encoding, part_bytes), config, key)

    try:
        return read(PART_BYTES)
    except _PartsDifferError:
        return read(math.inf)


class _PartsDifferError(Exception):
    """The parts of a file must be read as one, since what their values are cannot be told by each alone."""


def _content(config: TaskSection) -> list[str]:
    return list(dict.fromkeys(name for names in config.content_columns().values() for name in names))


def _join(parts: Iterable[Rows], config: TaskSection, key: str) -> Examples:
    """Return the usable rows of all parts.

    Raises:
        InputError: As :func:`read_examples`.
        _PartsDifferError: If the parts' columns are of different types.
    """
    joined = _JoinedExamples(config, key)
    for rows in parts:
        joined.add(rows)
        del rows  # before the next part is read
    return joined.examples()


class _JoinedExamples:
    def __init__(self, config: TaskSection, key: str) -> None:
        self._config, self._key = config, key
        self._tables, self._faults = Joined(), list[Faults]()
        self._looks: dict[str, Look] = {}
        self._file = DataName("")
        self._types: dict[str, Any] = {}
        self._schema: pa.Schema | None = None
        self._rows = self._matching = self._usable = 0

    def add(self, rows: Rows) -> None:
        """Add the usable rows of a part, and its faults."""
        config, key, self._file = self._config, self._key, rows.file
        _compare(self._types, rows)
        mask = matching_rows(rows, config.where, key)
        self._rows, self._matching = self._rows + len(mask), self._matching + int(mask.sum())
        if not mask.any() and (config.where or not rows.broken):
            self._faults.append(_faults(rows, mask, {}, key, config.encoding))
            return
        table, faults, kept = _examples(rows, mask, config, key)
        if self._schema not in (None, table.schema):
            raise _PartsDifferError
        self._schema = table.schema
        self._usable += table.num_rows
        self._tables.add(table)
        self._faults.append(faults)
        if not self._looks:
            self._looks = {name: look_of(values.slice(0, LOOKED_AT).combine_chunks()) for name, values in kept.items()}

    def examples(self) -> Examples:
        """Return all usable rows.

        Raises:
            InputError: As :func:`read_examples`.
        """
        file, config, key = self._file, self._config, self._key
        faults = Faults(
            file,
            np.concatenate([each.row_numbers for each in self._faults]),
            [entry for each in self._faults for entry in each.entries],
        )
        if not self._rows and not faults.entries:
            raise InputError(file, [Problem("", "has no rows")])
        if config.where and not self._matching:
            raise InputError(file, [Problem(f"{key}.where", f"none of {self._rows:,} rows meets the conditions")])
        if not config.drop_invalid:
            faults.raise_if_any(key)
        if not self._usable:
            raise InputError(file, faults.problems() or [Problem("", "has no rows that can be used")])
        return Examples(file, self._tables.table(), faults.count(), self._looks)


def _compare(types: dict[str, Any], rows: Rows) -> None:
    """Add the types of a part's columns to those of the parts before.

    A column of floats is read as texts without points if all are whole, so that parts must agree in that too.

    Raises:
        _PartsDifferError: If they are others.
    """
    for name, values in rows.columns.items():
        if pa.types.is_null(values.type):
            continue
        whole = not pa.types.is_floating(values.type) or pc.all(pc.equal(pc.floor(values), values)).as_py()
        if types.setdefault(name, (values.type, whole)) != (values.type, whole):
            raise _PartsDifferError


def _examples(
    rows: Rows, mask: Mask, config: TaskSection, key: str
) -> tuple[pa.Table, Faults, dict[str, pa.ChunkedArray]]:
    """Return the usable rows of a part, its faults, and the columns of its rows that count."""
    kept = {name: rows.columns[name] for name in _content(config)}
    if not mask.all():
        kept = {name: values.filter(pa.array(mask)) for name, values in kept.items()}
    optional = config.optional_columns()
    read = {name: Column(name, values, name in optional, rows.file, config.strip) for name, values in kept.items()}
    contents = config.contents(read)
    faults = _faults(rows, mask, read, key, config.encoding)
    examples = pa.table({"row": rows.numbers[mask], **contents})
    usable = faults.usable
    return (examples if usable.all() else examples.filter(pa.array(usable))), faults, kept


def _faults(rows: Rows, mask: Mask, columns: dict[str, Column], key: str, encoding: str) -> Faults:
    faults = Faults(rows.file, rows.numbers[mask])
    faults.entries += [(row, "", message) for row, message in rows.broken]
    for column in columns.values():
        for mask, message in column.refusals:
            faults.mark(mask, column.name, _with_encoding(message, rows.file, key, encoding))
    return faults


def _with_encoding(message: str, file: DataName, key: str, encoding: str) -> str:
    """Return a message that also says how csv files of another encoding are read."""
    names = [file, *(name for _, name in file.starts)]
    if message != NOT_UTF8 or not any(split_suffix(name)[0] == "csv" for name in names):
        return message
    if encoding != "utf-8":
        return f"cannot be decoded as {encoding}, which is {key}.encoding"
    return f"{message}; {key}.encoding names another encoding of a csv file"
