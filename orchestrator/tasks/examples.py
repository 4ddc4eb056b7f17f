"""From a file's rows to a split table's columns: texts with labels, or prompts with completions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_types import NOT_UTF8
from orchestrator.tasks.columns import Column
from orchestrator.tasks.faults import Faults
from orchestrator.tasks.files import Rows, read_rows
from orchestrator.tasks.filters import matching_rows
from orchestrator.tasks.section import TaskSection


def read_examples(reference: str, config: TaskSection, base: Path, key: str) -> tuple[pa.Table, int]:
    """Read the usable rows of one file.

    Args:
        reference: A path, a URI, or ``package:NAME/SUBPATH``.
        config: The task's section of the configuration.
        base: The folder that relative paths start from.
        key: Key path of the task, for errors.

    Returns:
        A table with ``row`` and the columns of :meth:`TaskSection.contents`; and how many rows were dropped.

    Raises:
        InputError: If a row cannot be used and the task does not drop such rows, or no row is left.
    """
    columns_by_key = {f"{key}.{'.'.join(path)}": names for path, names in config.columns().items()}
    optional = config.optional_columns()
    content_columns = list(dict.fromkeys(name for names in config.content_columns().values() for name in names))
    matched_columns = [name for name, condition in config.where.items() if condition.matches is not None]
    rows = read_rows(
        reference, base, {**columns_by_key, "": list(optional)}, [*content_columns, *matched_columns], config.encoding
    )
    if not rows.table.num_rows and not rows.broken:
        raise InputError(rows.file, [Problem("", "has no rows")])
    table = rows.table.filter(pa.array(matching_rows(rows, config.where, key)))
    columns = {name: _column(table, name, name in optional, rows.file) for name in content_columns}
    contents = config.contents(columns)
    faults = _faults(Rows(rows.file, table, rows.broken), columns, key)
    if not config.drop_invalid:
        faults.raise_if_any(key)
    examples = pa.table({"row": table["row"], **contents}).filter(pa.array(faults.usable))
    if not examples.num_rows:
        raise InputError(rows.file, faults.problems() or [Problem("", "has no rows that can be used")])
    return examples, faults.count()


def _column(table: pa.Table, name: str, optional: bool, file: str) -> Column:
    values = table[name] if name in table.column_names else pa.nulls(table.num_rows)
    return Column(name, values, optional, file)


def _faults(rows: Rows, columns: dict[str, Column], key: str) -> Faults:
    faults = Faults(rows.file, rows.table["row"].to_numpy())
    faults.entries += [(row, "", message) for row, message in rows.broken]
    hint = f"; {key}.encoding names another encoding of a csv file"
    for column in columns.values():
        for mask, message in column.refusals:
            faults.mark(mask, column.name, message + hint if message == NOT_UTF8 else message)
    return faults
