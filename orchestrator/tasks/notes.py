"""What is worth telling of a task's rows: their layout, labels that are nearly the same, texts with two answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from orchestrator.tasks.layouts import Look, recognize
from orchestrator.tasks.splits import duplicate_keys

MAX_NOTES = 5
_UNTOLD = ("texts with a label", "prompts with completions")
"""Layouts that their own keys name already."""


def layout_note(looks: Mapping[str, Look], type_: str, named: Mapping[tuple[str, ...], Sequence[str]]) -> list[str]:
    """Return the layout of a task's rows, if its keys are those of one that people know by a name of its own.

    Args:
        looks: What the columns hold.
        type_: Type of the task.
        named: Columns by the key path that names them.
    """
    layout = recognize(looks, type_)
    if layout is None or layout.name in _UNTOLD:
        return []
    is_used = all([column] == named.get((key,)) for key, column in layout.keys.items())
    return [layout.reason] if is_used else []


def label_notes(labels: Sequence[str], tables: Iterable[pa.Table]) -> list[str]:
    """Return labels that differ in white space or case alone, with how many rows have them."""
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(" ".join(label.split()).casefold(), []).append(index)
    counts = np.zeros(len(labels), np.int64)
    for table in tables:
        if "label" in table.column_names and pa.types.is_integer(table.schema.field("label").type):
            counts += np.bincount(table["label"].to_numpy(), minlength=len(labels))
    notes = [_nearly_same([(labels[index], int(counts[index])) for index in group]) for group in groups.values()]
    notes = [note for note in notes if note]
    more = len(notes) - MAX_NOTES
    return [*notes[:MAX_NOTES], *([f"{more:,} more groups of labels differ in white space or case alone"] * (more > 0))]


def _nearly_same(labels: list[tuple[str, int]]) -> str:
    if len(labels) < 2:
        return ""
    named = " and ".join(f"{label!r} ({count:,} rows)" if count else repr(label) for label, count in labels)
    if len({label.strip() for label, _ in labels}) < len(labels):
        return f"labels {named} differ in white space alone; strip: true makes them one"
    return f"labels {named} differ in case or white space alone, and are classes of their own"


def conflict_note(tables: Mapping[str, pa.Table], text_columns: Sequence[str]) -> list[str]:
    """Return how many inputs come with different answers, of which deduplication keeps one outside a given test split.

    Args:
        tables: Rows by split, or all rows as ``data``.
        text_columns: Columns that make up an input.
    """
    first, *others = tables.values()
    # "references" may be in one file alone.
    names = [name for name in first.column_names if all(name in other.column_names for other in others)]
    table = pa.concat_tables([table.select(names).drop_columns(["row"]) for table in tables.values()])
    inputs = duplicate_keys(table, text_columns)
    distinct = pa.table({"input": inputs, "row": duplicate_keys(table, table.column_names)}).group_by("input")
    answers = distinct.aggregate([("row", "count_distinct")])["row_count_distinct"].to_numpy()
    count = int((answers > 1).sum())
    if not count:
        return []
    which = "input has" if count == 1 else "inputs have"
    outside = " outside test" if "test" in tables else ""
    return [f"{count:,} {which} more than one answer in these rows; one row of each is used{outside}"]
