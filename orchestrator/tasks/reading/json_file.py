"""Rows of a JSON file: an object a line, or one array of objects, whatever the suffix says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from orchestrator.common.jsonl import json_problem
from orchestrator.tasks.column_types import to_array
from orchestrator.tasks.reading.source import ROWS, Batch, DataFile

KNOWN_ROWS = 1000
"""Rows whose keys are the columns before the file is read."""


class JsonSource:
    """A JSON file.

    Raises:
        ValueError: If none of the first rows is an object.
    """

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self.names: list[str] = []
        rows = [row for _, row in itertools.islice(self._rows(), KNOWN_ROWS)]
        if rows and not any(isinstance(row, dict) for row in rows):
            raise ValueError(f"has no row that is a JSON object: row 1 {rows[0]}")
        for row in rows:
            self._add_names(row)

    def batches(self, columns: Sequence[str], rows: int = ROWS) -> Iterator[Batch]:
        """Iterate over the rows; all columns that are asked for are there, null where a row has no such key.

        Raises:
            ValueError: If an array is no JSON.
        """
        parsed = self._rows()
        while part := list(itertools.islice(parsed, rows)):
            good = [(number, row) for number, row in part if isinstance(row, dict)]
            for _, row in part:
                self._add_names(row)
            values = {name: to_array([row.get(name) for _, row in good]) for name in columns}
            broken = [(number, row) for number, row in part if not isinstance(row, dict)]
            yield Batch(values, np.array([number for number, _ in good], np.int64), broken)

    def _add_names(self, row: Any) -> None:
        if isinstance(row, dict):
            known = set(self.names)
            self.names += [name for name in row if name not in known]

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Iterate over number and object of each row; a message where it is none."""
        with self._file.open_text("utf-8", newline=None) as text:
            lines = (line for line in text if not line.isspace())
            first = next(lines, "")
            if not first:
                raise ValueError("is empty")
            if first.lstrip().startswith("["):
                yield from _array(first + text.read())
                return
            for number, line in enumerate(itertools.chain([first], lines), start=1):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    if number == 1 and first.strip() == "{":
                        message = "is one JSON object over many lines; write an array of rows, or a row on each line"
                        raise ValueError(message) from None
                    yield number, json_problem(error)
                except RecursionError:
                    yield number, "is nested too deep"
                else:
                    yield number, _object(row)


def _array(content: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        rows = json.loads(content)
    except json.JSONDecodeError as error:
        number = _complete_rows(content) + 1
        message = f"is not JSON ({error.msg.removesuffix(' at')} at character {error.colno:,} of line {error.lineno:,})"
        raise ValueError(f"row {number:,} {message}") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    for number, row in enumerate(rows, start=1):
        yield number, _object(row)


def _complete_rows(content: str) -> int:
    """Return how many values an array holds before the first that is no JSON."""
    decoder, position, count = json.JSONDecoder(), content.index("[") + 1, 0
    while True:
        while position < len(content) and content[position] in " \t\r\n,":
            position += 1
        try:
            _, position = decoder.raw_decode(content, position)
        except json.JSONDecodeError:
            return count
        count += 1


def _object(row: Any) -> dict[str, Any] | str:
    if isinstance(row, dict):
        return row
    return f"is {json.dumps(row)[:40]}, which is no row; write an object with columns"
