"""Rows through a predictor: lines of JSON in, lines of JSON out, in order, a batch in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.jsonl import finite
from orchestrator.common.suggest import did_you_mean

if TYPE_CHECKING:
    from orchestrator.tracking.predictor import Predictor

MOST_PROBLEMS = 5
BATCHES_AT_ONCE = 8
Row = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """A batch of answers.

    Args:
        lines: one JSON object each, with its line end.
        rows: answered so far, this batch included.
    """

    lines: str
    rows: int


def predict_lines(predictor: Predictor, lines: Iterable[bytes], source: str) -> Iterator[Written]:
    """Answer row after row.

    A batch is checked as a whole before any of it is predicted, so that what was written is always whole rows.

    Args:
        predictor: the model.
        lines: one JSON object each, UTF-8; empty ones are passed over.
        source: where they are from, for errors.

    Raises:
        InputError: if a row cannot be used; it tells the lines.
    """
    bundle, done = predictor.bundle, 0
    # Rows are sorted by length within what is read at once, so that a batch has little padding.
    for numbered in _chunks(lines, bundle.evaluation_batch * BATCHES_AT_ONCE):
        rows = _checked(numbered, bundle.column, source)
        answers, probabilities = predictor.predict([row[bundle.column] for row in rows])
        done += len(rows)
        yield Written("".join(map(_line, rows, _answers(predictor, answers, probabilities))), done)


def _chunks(lines: Iterable[bytes], size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines, without the empty ones."""
    chunk: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            chunk.append((number, line))
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _checked(numbered: Sequence[tuple[int, bytes]], column: str, source: str) -> list[Row]:
    rows, problems = [], []
    for number, line in numbered:
        row = _parsed(line)
        if problem := _problem(row, column):
            problems.append(Problem(f"line {number:,}", problem))
        else:
            rows.append(row)
    if problems:
        more = len(problems) - MOST_PROBLEMS
        example = f'a row is {{"{column}": "..."}}, in one line'
        hint = f"and {more:,} more lines; {example}" if more > 0 else example
        raise InputError(source, problems[:MOST_PROBLEMS], hint)
    return rows


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)  # which decodes it as well
    except ValueError as error:
        return error


def _problem(row: Any, column: str) -> str:
    if isinstance(row, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(row, ValueError):
        return "is no JSON"
    if not isinstance(row, dict):
        return f"is a JSON {_kind(row)}, not an object"
    if column not in row:
        return f"has no {column}; {did_you_mean(column, list(row), 'it has')}"
    if not isinstance(row[column], str):
        return f"{column} is {_kind(row[column])}, not a string"
    return "" if row[column].strip() else f"{column} is empty"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}.get(type(value), "object")


def _answers(predictor: Predictor, answers: Sequence[str], probabilities: Any) -> Iterator[Row]:
    if predictor.bundle.type == "causal-lm":
        yield from ({"completion": answer} for answer in answers)
        return
    labels = predictor.bundle.labels
    for answer, row in zip(answers, probabilities.tolist(), strict=True):
        yield {"label": answer, "probabilities": dict(zip(labels, row, strict=True))}


def _line(row: Row, answer: Row) -> str:
    """A row's own columns and the answer; what the row itself said under the answer's names stays as ``given_...``."""
    own = {f"given_{name}" if name in answer else name: value for name, value in row.items()}
    return json.dumps(finite({**own, **answer}), ensure_ascii=False) + "\n"
