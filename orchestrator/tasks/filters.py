"""Which rows count: the conditions of ``where``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_types import Mask, flags
from orchestrator.tasks.columns import Column
from orchestrator.tasks.files import Rows
from orchestrator.tasks.section import Condition


def matching_rows(rows: Rows, where: Mapping[str, Condition], key: str) -> Mask:
    """Return the rows that meet every condition; an empty value meets none.

    Args:
        rows: Rows of one file.
        where: Conditions by column.
        key: Key path of the task, for errors.

    Raises:
        InputError: If a column is of another type than its condition, or no row meets the conditions.
    """
    mask = np.ones(rows.table.num_rows, bool)
    for name, condition in where.items():
        try:
            mask &= _meets(rows, name, condition)
        except pa.ArrowInvalid as error:
            message = f"column {name} holds values that are not numbers ({str(error).splitlines()[0]})"
            raise InputError(rows.file, [Problem(f"{key}.where.{name}", message)]) from error
    if where and not mask.any():
        raise InputError(rows.file, [Problem(f"{key}.where", f"none of {len(mask):,} rows meets the conditions")])
    return mask


def _meets(rows: Rows, name: str, condition: Condition) -> Mask:
    mask = np.ones(rows.table.num_rows, bool)
    if condition.matches is not None:
        mask &= flags(pc.match_substring_regex(_texts(rows, name), condition.matches), null=False)
    if condition.at_least is not None:
        mask &= flags(pc.greater_equal(_numbers(rows.table, name), condition.at_least), null=False)
    if condition.at_most is not None:
        mask &= flags(pc.less_equal(_numbers(rows.table, name), condition.at_most), null=False)
    if condition.equals is not None:
        mask &= _equals(rows, name, condition.equals)
    return mask


def _texts(rows: Rows, name: str) -> pa.Array:
    return Column(name, rows.table[name], optional=True, file=rows.file).texts


def _numbers(table: pa.Table, name: str) -> pa.Array:
    array = table[name].combine_chunks()
    if pa.types.is_binary(array.type):
        array = array.cast(pa.string())
    return array.cast(pa.float64())


def _equals(rows: Rows, name: str, value: Any) -> Mask:
    if isinstance(value, str | bool):
        text = value if isinstance(value, str) else str(value).lower()
        return flags(pc.equal(_texts(rows, name), text), null=False)
    return flags(pc.equal(_numbers(rows.table, name), float(value)), null=False)
