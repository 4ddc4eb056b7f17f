"""Which rows count: the conditions of ``where``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_types import PLURALS, Kind, Mask, flags, kind_of
from orchestrator.tasks.columns import Column
from orchestrator.tasks.files import Rows
from orchestrator.tasks.section import Condition


def matching_rows(rows: Rows, where: Mapping[str, Condition], key: str) -> Mask:
    """Return the rows that meet every condition; an empty value meets none.

    Values are compared by the type that the file stores; csv stores texts, as they are written.

    Args:
        rows: Rows of a split's files.
        where: Conditions by column.
        key: Key path of the task, for errors.

    Raises:
        InputError: If a column is of another type than its condition.
    """
    mask = np.ones(len(rows.numbers), bool)
    for name, condition in where.items():
        try:
            mask &= _meets(rows, name, condition)
        except ValueError as error:
            raise InputError(rows.file, [Problem(f"{key}.where.{name}", f"column {name} {error}")]) from None
    return mask


def _meets(rows: Rows, name: str, condition: Condition) -> Mask:
    """Return the rows that meet a condition.

    Raises:
        ValueError: If the column is of another type; the message continues "column NAME".
    """
    values = rows.columns[name]
    column, kind = Column(name, values, optional=True, file=rows.file), kind_of(values.type)
    mask = np.ones(len(rows.numbers), bool)
    if condition.matches is not None:
        mask &= flags(pc.match_substring_regex(_texts(column, kind, "matches"), condition.matches), null=False)
    if condition.at_least is not None:
        mask &= flags(pc.greater_equal(_numbers(column, kind, rows, "at_least"), condition.at_least), null=False)
    if condition.at_most is not None:
        mask &= flags(pc.less_equal(_numbers(column, kind, rows, "at_most"), condition.at_most), null=False)
    if isinstance(condition.equals, bool):
        texts = pc.utf8_lower(_texts(column, kind, "equals"))
        mask &= flags(pc.equal(texts, str(condition.equals).lower()), null=False)
    elif isinstance(condition.equals, str):
        mask &= flags(pc.equal(_texts(column, kind, "equals"), condition.equals), null=False)
    elif condition.equals is not None:
        _require(kind, ("number", "text", "json", "nothing"), f"equals: {condition.equals}", "numbers")
        mask &= flags(pc.equal(column.numbers, float(condition.equals)), null=False)
    return mask


def _texts(column: Column, kind: Kind, condition: str) -> pa.Array:
    _require(kind, ("number", "text", "json", "nothing", "boolean", "time"), condition, "texts")
    return column.texts


def _numbers(column: Column, kind: Kind, rows: Rows, condition: str) -> pa.Array:
    _require(kind, ("number", "text", "json", "nothing"), condition, "numbers")
    numbers = column.numbers
    for mask, message in column.refusals:
        if kind != "number":  # a text that is no number; stored numbers that are NaN or infinite meet no condition
            place = rows.file.place(int(rows.numbers[mask][0]))
            raise ValueError(f"holds values that are not numbers ({place}: {message})")
    return numbers


def _require(kind: Kind, kinds: tuple[Kind, ...], condition: str, compared: str) -> None:
    if kind not in kinds:
        raise ValueError(f"holds {PLURALS[kind]}; {condition} compares {compared}")
