"""Predict rows that are JSON lines, and yield them as JSON lines, with a few batches in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.jsonl import finite, is_unicode
from orchestrator.tasks.inputs import InputSchema, answer_rows, json_type

if TYPE_CHECKING:
    from orchestrator.tracking.predictor import Predictor

MAX_PROBLEMS = 5
CHUNK_BATCHES = 8
Row = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Rows that were predicted together.

    Args:
        lines: One JSON object per row, each with its line end.
        rows: Number of rows predicted so far, these included.
    """

    lines: str
    rows: int


def predict_lines(predictor: Predictor, lines: Iterable[bytes], source: str) -> Iterator[Chunk]:
    """Predict rows, and yield them in their order with their predictions.

    A chunk is checked as a whole before any of its rows is predicted, so that every chunk before an error is complete.

    Args:
        predictor: The model.
        lines: One JSON object each, in UTF-8; empty lines are skipped.
        source: Name of where the lines come from, for errors.

    Raises:
        InputError: If a row cannot be used, with the numbers of such lines.
    """
    bundle, answered = predictor.bundle, 0
    # Rows are sorted by length within a chunk, so that a chunk of several batches has little padding.
    for numbered_lines in _chunks(lines, bundle.evaluation_batch * CHUNK_BATCHES):
        rows = _parsed_rows(numbered_lines, bundle.input_schema, source)
        answers = answer_rows(predictor.predict(rows), predictor.type.answer_columns(bundle.labels))
        answered += len(rows)
        objects = [predictor.type.answer_object(answer) for answer in answers]
        yield Chunk("".join(map(_line, rows, objects)), answered)


def _chunks(lines: Iterable[bytes], size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the lines in chunks, numbered, without the empty ones."""
    chunk: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            chunk.append((number, line))
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _parsed_rows(numbered_lines: Sequence[tuple[int, bytes]], schema: InputSchema, source: str) -> list[Row]:
    rows, problems = [], []
    for number, line in numbered_lines:
        row = _parsed(line)
        if problem := _row_problem(row, schema):
            problems.append(Problem(f"line {number:,}", problem))
        else:
            rows.append(row)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        example = f"a row is {schema.usage}, in one line"
        hint = f"and {more:,} more lines; {example}" if more > 0 else example
        raise InputError(source, problems[:MAX_PROBLEMS], hint)
    return rows


def _parsed(line: bytes) -> Any:
    """Return the value of a line, or the error that its parsing raises."""
    try:
        return json.loads(line)  # decodes UTF-8 too
    except ValueError as error:
        return error


def _row_problem(row: Any, schema: InputSchema) -> str:
    """Return what is wrong with a line's value; empty if nothing is."""
    if isinstance(row, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(row, ValueError):
        return "is not JSON"
    if not isinstance(row, dict):
        return f"is a JSON {json_type(row)}, not an object"
    return schema.refusal(row)


def _line(row: Row, answer: Row) -> str:
    """Return a row with its answer; a column that has the name of one of the answer's is renamed to ``given_NAME``."""
    columns = {f"given_{name}" if name in answer else name: value for name, value in row.items()}
    line = finite({**columns, **answer})
    return json.dumps(line, ensure_ascii=not is_unicode(line)) + "\n"
