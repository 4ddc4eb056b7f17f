"""The inputs that a served model gets, in whatever form a client sends them, as rows of JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.tasks.inputs import InputSchema, plain

if TYPE_CHECKING:
    import pandas as pd

MAX_PROBLEMS = 3


def served_rows(model_input: Any, schema: InputSchema) -> list[dict[str, Any]]:
    """Return the rows of an input, checked as ``peft-sweep predict`` checks them.

    Args:
        model_input: data frame with the columns of the schema; where a model reads one column, also a list, an array or
            a series of its values, or a single value.
        schema: columns that the model reads.

    Raises:
        ValueError: if a row cannot be used, one line that names the first such rows.
    """
    rows = _rows(model_input, schema)
    problems = ((number, schema.refusal(row)) for number, row in enumerate(rows, 1))
    found = [f"row {number:,}: {problem}" for number, problem in problems if problem]
    if found:
        more = f"; and {len(found) - MAX_PROBLEMS:,} more rows" if len(found) > MAX_PROBLEMS else ""
        raise ValueError(f"{'; '.join(found[:MAX_PROBLEMS])}{more}; a row is {schema.usage}")
    return rows


def _rows(model_input: Any, schema: InputSchema) -> list[dict[str, Any]]:
    import pandas as pd

    if isinstance(model_input, pd.DataFrame):
        return _rows_of_frame(model_input, schema)
    if isinstance(model_input, dict):
        values = {name: plain(column) for name, column in model_input.items()}
        lists = {name: column if isinstance(column, list) else [column] for name, column in values.items()}
        if len({len(column) for column in lists.values()}) > 1:
            sizes = ", ".join(f"{name!r} {len(column):,}" for name, column in lists.items())
            raise ValueError(f"the columns have different numbers of values: {sizes}; each needs one per row")
        return _rows_of_frame(pd.DataFrame(lists), schema)
    values = plain(model_input)
    return [
        value if isinstance(value, dict) else {next(iter(schema.columns)): value}
        for value in (values if isinstance(values, list) else [values])
    ]


def _rows_of_frame(frame: pd.DataFrame, schema: InputSchema) -> list[dict[str, Any]]:
    names = [name for name in schema.columns if name in frame.columns]
    if not names and list[Any](frame.columns) == [0]:  # a list of values, as a data frame has it
        return [{next(iter(schema.columns)): value} for value in frame[0].tolist()]
    # Columns that the model does not read stay where it lacks one, for the message that names it.
    chosen = frame[names] if len(names) == len(schema.columns) else frame
    rows: Any = chosen.to_dict("records")
    return list(rows)
