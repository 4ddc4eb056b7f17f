"""From a file's rows to examples: texts with labels, or prompts with completions."""

from __future__ import annotations

from pathlib import Path
from string import Formatter

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.config import CausalLMTask, Task
from orchestrator.config.tasks import template_columns
from orchestrator.tasks.columns import Column, as_texts
from orchestrator.tasks.faults import Faults
from orchestrator.tasks.files import Rows, read_rows
from orchestrator.tasks.filters import kept


def examples(reference: str, config: Task, base: Path, key: str) -> tuple[pa.Table, int]:
    """The usable rows of one file.

    Args:
        reference: the file.
        config: what the sweep says of the task.
        base: the folder that relative paths start from.
        key: key path of the task, for errors.

    Returns:
        Columns ``row`` and ``text``, ``label`` (as text) or ``prompt``, ``completion``; and how many rows were dropped.

    Raises:
        InputError: if a row cannot be used and the task does not drop such rows, or none is left.
    """
    named = {f"{key}.{'.'.join(path)}": names for path, names in config.columns().items()}
    contents = _content_columns(config)
    patterns = [name for name, condition in config.where.items() if condition.matches is not None]
    rows = read_rows(reference, base, named, [*contents, *patterns], config.encoding)
    if not rows.table.num_rows and not rows.broken:
        raise InputError(rows.file, [Problem("", "has no rows")])
    counted = rows.table.filter(pa.array(kept(rows, config.where, key)))
    columns = {name: as_texts(counted, name, rows.file) for name in contents}
    faults = _faults(Rows(rows.file, counted, rows.broken), columns, config, key)
    if not config.drop_invalid:
        faults.refuse(key)
    table = pa.table({"row": counted["row"], **_contents(columns, config)}).filter(pa.array(faults.usable))
    if not table.num_rows:
        raise InputError(rows.file, faults.problems() or [Problem("", "has no rows that can be used")])
    return table, faults.count()


def _content_columns(config: Task) -> list[str]:
    names = [name for path, names in config.columns().items() if path[0] != "where" for name in names]
    return list(dict.fromkeys(names))


def _faults(rows: Rows, columns: dict[str, Column], config: Task, key: str) -> Faults:
    faults = Faults(rows.file, rows.table["row"].to_numpy())
    faults.found += [(row, "", message) for row, message in rows.broken]
    for column in columns.values():
        hint = f"is not UTF-8; {key}.encoding names another encoding of a csv file"
        faults.mark(column.undecodable, column.name, hint)
        faults.mark(column.empty & ~column.undecodable, column.name, "is empty")
    return faults


def _contents(columns: dict[str, Column], config: Task) -> dict[str, pa.Array]:
    if isinstance(config, CausalLMTask):
        return {name: render(getattr(config, name), columns) for name in ("prompt", "completion")}
    return {"text": columns[config.text].texts, "label": columns[config.label].texts}


def render(template: str, columns: dict[str, Column]) -> pa.Array:
    """One text per row: the template with each row's values in its braces, or a column's values as they are."""
    if template_columns(template) == [template]:
        return columns[template].texts
    parts: list[pa.Array | pa.Scalar] = []
    for literal, field, _, _ in Formatter().parse(template):
        parts += [pa.scalar(literal)] if literal else []
        parts += [columns[field].texts] if field else []
    return pc.binary_join_element_wise(*parts, "")
