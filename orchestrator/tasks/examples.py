"""From a file's rows to a split table's columns: texts with labels, or prompts with completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_readings import NOT_UTF8
from orchestrator.tasks.column_types import Mask
from orchestrator.tasks.columns import Column
from orchestrator.tasks.faults import DataName, Faults
from orchestrator.tasks.files import Rows, read_rows
from orchestrator.tasks.filters import matching_rows
from orchestrator.tasks.layouts import Look
from orchestrator.tasks.mapped import mapped
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
    """Read the usable rows of one file.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        config: The task's section of the configuration.
        base: The folder that relative paths start from.
        key: Key path of the task, for errors.

    Raises:
        InputError: If a row cannot be used and the task does not drop such rows, or no row is left.
    """
    columns = {f"{key}.{'.'.join(path)}": names for path, names in config.columns().items()}
    optional = config.optional_columns()
    content = list(dict.fromkeys(name for names in config.content_columns().values() for name in names))
    rows = read_rows(reference, base, columns, [name for name in content if name in optional], config.encoding)
    if not len(rows.numbers) and not rows.broken:
        raise InputError(rows.file, [Problem("", "has no rows")])
    mask = matching_rows(rows, config.where, key)
    kept = {name: rows.columns[name] for name in content}
    if not mask.all():
        kept = {name: values.filter(pa.array(mask)) for name, values in kept.items()}
    read = {name: Column(name, kept[name], name in optional, rows.file, config.strip) for name in content}
    contents = config.contents(read)
    faults = _faults(rows, mask, read, key, config.encoding)
    if not config.drop_invalid:
        faults.raise_if_any(key)
    examples = pa.table({"row": rows.numbers[mask], **contents})
    if not faults.usable.all():
        examples = examples.filter(pa.array(faults.usable))
    if not examples.num_rows:
        raise InputError(rows.file, faults.problems() or [Problem("", "has no rows that can be used")])
    looks = {name: look_of(values.slice(0, LOOKED_AT).combine_chunks()) for name, values in kept.items()}
    return Examples(rows.file, mapped(examples), faults.count(), looks)


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
