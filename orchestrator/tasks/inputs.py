"""What a trained model reads and answers: columns of a kind each, as JSON values and as Arrow columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from orchestrator.common.errors import one_line
from orchestrator.common.jsonl import is_unicode
from orchestrator.common.suggest import did_you_mean

ColumnKind = Literal["string", "double", "long", "strings", "doubles", "json"]
"""A text, a number, a whole number, a list of texts, a list of numbers, or any JSON value."""
ARROW_TYPES: dict[ColumnKind, pa.DataType] = {
    "string": pa.string(),
    "double": pa.float64(),
    "long": pa.int64(),
    "strings": pa.list_(pa.string()),
    "doubles": pa.list_(pa.float64()),
    "json": pa.string(),
}
"""A JSON value is kept as its text: Arrow would give every object of a list the same keys."""
TENSORS = 'return_tensors="pt"'
KIND_NAMES: dict[ColumnKind, str] = {
    "string": "a string",
    "double": "a number",
    "long": "a whole number",
    "strings": "an array of strings",
    "doubles": "an array of numbers",
    "json": "an array or an object",
}


@dataclass(frozen=True, kw_only=True)
class InputColumn:
    """One column that a trained model reads.

    Args:
        kind: Kind of its values.
        example: A value for MLflow's input example and the model card.
        required: Whether every row needs it. Where a row has no value of an optional one, the split table has an empty
            text, or null for other kinds.
        check: Returns what is wrong with a value of the kind, a clause such as ``has no role``; empty if nothing is.
    """

    kind: ColumnKind = "string"
    example: Any
    required: bool = True
    check: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class InputSchema:
    """The columns that one trained model reads.

    Args:
        columns: Columns by the names under which clients send them, the main input first.
        split_names: The same columns' names in a split table, by the clients' names.
    """

    columns: Mapping[str, InputColumn]
    split_names: Mapping[str, str]

    @property
    def example(self) -> dict[str, Any]:
        """A row with every column."""
        return {name: column.example for name, column in self.columns.items()}

    @property
    def usage(self) -> str:
        """A row as an error shows it: ``{"text": "..."}``."""
        values = {
            name: "..." if column.kind == "string" else column.example
            for name, column in self.columns.items()
            if column.required
        }
        return json.dumps(values, ensure_ascii=False)

    @property
    def tokenizer_call(self) -> str:
        """What follows a tokenizer in Python code that tokenizes the example: ``("...", return_tensors="pt")``."""
        values = [(column.kind, json.dumps(column.example, ensure_ascii=False)) for column in self.columns.values()]
        if any(kind == "json" for kind, _ in values):
            return f".apply_chat_template({values[0][1]}, add_generation_prompt=True, return_dict=True, {TENSORS})"
        words = "is_split_into_words=True, " if values[0][0] == "strings" else ""
        return f"({', '.join(value for _, value in values)}, {words}{TENSORS})"

    def problem(self, row: Mapping[str, Any]) -> str:
        """Return what is wrong with a row of JSON values, a clause; empty if nothing is."""
        problems = (_problem(name, column, row) for name, column in self.columns.items())
        return next(filter(None, problems), "")

    def empty_column(self, row: Mapping[str, Any]) -> str:
        """Return the first required column of a valid row that holds nothing but white space; empty if none does."""
        required = (name for name, column in self.columns.items() if column.required)
        return next((name for name in required if _is_blank(row[name])), "")

    def refusal(self, row: Mapping[str, Any]) -> str:
        """Return why a row is not predicted, a clause; empty if it can be: what is wrong with it, or what is empty."""
        if problem := self.problem(row):
            return problem
        column = self.empty_column(row)
        return f"{column} is empty" if column else ""

    def to_table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return rows as a table with a split table's names.

        Raises:
            ValueError: If a row cannot be used, with its number.
        """
        for number, row in enumerate(rows, 1):
            if problem := self.problem(row):
                raise ValueError(f"row {number}: {problem}")
        table = {}
        for name, column in self.columns.items():
            missing = "" if column.kind == "string" else None  # as an optional column of a file is read
            values = [_present(row.get(name)) for row in rows]
            values = [missing if value is None else value for value in values]
            table[self.split_names[name]] = to_arrow(values, column.kind)
        return pa.table(table)

    def to_rows(self, table: pa.Table) -> list[dict[str, Any]]:
        """Return the rows of a table with a split table's names; ``None`` where an optional column has no value.

        Every row has every column: a data frame would fill the gaps with NaN, which MLflow takes for no list.
        """
        columns = {
            name: from_arrow(table[self.split_names[name]], column.kind) for name, column in self.columns.items()
        }
        for name, column in self.columns.items():
            if column.kind == "string" and not column.required:
                columns[name] = [value or None for value in columns[name]]
        return [{name: columns[name][row] for name in columns} for row in range(table.num_rows)]


def to_arrow(values: Sequence[Any], kind: ColumnKind) -> pa.Array:
    """Return JSON values of a kind as an Arrow column; ``None`` is null."""
    if kind == "json":
        values = [None if value is None else json.dumps(plain(value), ensure_ascii=False) for value in values]
    return pa.array([plain(value) for value in values], ARROW_TYPES[kind])


def from_arrow(column: pa.Array | pa.ChunkedArray, kind: ColumnKind) -> list[Any]:
    """Return an Arrow column of a kind as JSON values; null is ``None``."""
    values: list[Any] = column.to_pylist()
    return [None if text is None else json.loads(text) for text in values] if kind == "json" else values


def answer_rows(answers: pa.Table, kinds: Mapping[str, ColumnKind]) -> list[dict[str, Any]]:
    """Return the rows of an answer's table as JSON values by column."""
    columns = [from_arrow(answers[name], kind) for name, kind in kinds.items()]
    return [dict(zip(kinds, values, strict=True)) for values in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    """Return a value without numpy's arrays and numbers, in which data frames hold lists."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def json_type(value: Any) -> str:
    """Return how JSON calls the type of a value: ``null``, ``number``, ``array``."""
    if value is None:
        return "null"
    return {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}.get(type(value), "object")


def _problem(name: str, column: InputColumn, row: Mapping[str, Any]) -> str:
    value = plain(_present(row.get(name)))
    if value is None and not column.required:
        return ""
    if name not in row:
        return f"has no {name}; {did_you_mean(name, [one_line(str(key)) for key in row], 'it has')}"
    if not _is_of_kind(value, column.kind):
        return f"{name} is {_shown_type(value)}, not {KIND_NAMES[column.kind]}"
    if not is_unicode(value):
        return f"{name} is not UTF-8: it holds half of a surrogate pair"
    problem = column.check(value) if column.check else ""
    return f"{name} {problem}" if problem else ""


def _present(value: Any) -> Any:
    """Return a value, or ``None`` for the NaN that a data frame has in place of a missing one."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_of_kind(value: Any, kind: ColumnKind) -> bool:
    if kind in ("strings", "doubles"):
        item: ColumnKind = "string" if kind == "strings" else "double"
        return isinstance(value, list) and all(_is_of_kind(each, item) for each in value)
    if kind == "double":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "long":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str if kind == "string" else (list, dict))


def _shown_type(value: Any) -> str:
    if isinstance(value, list) and value:
        return f"array of {' and '.join(sorted({json_type(item) for item in value}))}"
    return json_type(value)


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return all(map(_is_blank, value)) if isinstance(value, list) else value == {}
