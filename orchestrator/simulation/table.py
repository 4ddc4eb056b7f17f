"""Tables of recorded learning curves: a task, its methods, and a curve of every configuration that was trained."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyarrow import parquet

from orchestrator.common.errors import InputError, Problem
from orchestrator.simulation.curves import Curve

COLUMNS = ("task", "method", "config_id", "params", "step", "seconds", "score")
MAX_RUNGS, REDUCTION_FACTOR = 3, 2
VALIDATION_ROWS = 768
"""Number of validation rows of every score, in a table without a column ``rows``."""


@dataclass(frozen=True)
class Table:
    """An exhaustive search of one task.

    Args:
        task: The task's name.
        rungs: Optimizer steps at which trials are compared.
        methods: The curves of each method, in the order of their numbers.
        rows: Number of validation rows of each score.
        error: Standard error of a score, from resampling those rows; ``None`` if it was not recorded.
    """

    task: str
    rungs: tuple[int, ...]
    methods: Mapping[str, tuple[Curve, ...]]
    rows: int = VALIDATION_ROWS
    error: float | None = None

    @staticmethod
    def read(files: Iterable[Path]) -> list[Table]:
        """Read the tables of some files, one per task, in the order in which the tasks appear.

        Args:
            files: Files of parquet, or of one JSON object per line, with the columns :data:`COLUMNS` and optionally
                ``rows``, the number of validation rows, and ``standard_error``, that of a score.

        Raises:
            InputError: If a file cannot be read, is empty, or lacks a column.
        """
        tasks: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for file in files:
            for row in _rows(file):
                tasks[str(row["task"])].append(row)
        return [Table.of(task, rows) for task, rows in tasks.items()]

    @staticmethod
    def of(task: str, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Return the table of one task's rows.

        It has at most three rungs, each at most half of the next, counted from the last, as in a sweep by default: for
        scores after each of 50 epochs, those after 12, 25 and 50. A curve without a score at a rung
        gets the one before it, and none if it ended before the rung.
        """
        rungs = _rungs({int(row["step"]) for row in rows})
        scored, error = int(rows[0].get("rows") or VALIDATION_ROWS), rows[0].get("standard_error")
        grouped: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            grouped[str(row["method"]), int(row["config_id"])].append(row)
        methods: dict[str, list[Curve]] = defaultdict(list)
        for (method, number), curve in sorted(grouped.items(), key=lambda item: item[0][1]):
            methods[method].append(_curve(method, number, curve, rungs, scored))
        return Table(task, rungs, {method: tuple(methods[method]) for method in sorted(methods)}, scored, error)

    @property
    def cost(self) -> float:
        """Lane-seconds of training every configuration to the end."""
        return sum(curve.seconds[self.rungs[-1]] for curves in self.methods.values() for curve in curves)

    def best(self, method: str) -> float:
        """Return a method's best score at the last rung; minus infinity if it has none."""
        scores = [curve.scores[self.rungs[-1]] for curve in self.methods[method]]
        return max((score for score in scores if math.isfinite(score)), default=-math.inf)

    def standard_error(self, score: float) -> float | None:
        """Return the recorded standard error of a score, or that of a proportion; ``None`` if the score is neither."""
        return share_error(score, self.rows) if self.error is None else self.error

    def step_seconds(self, method: str) -> float:
        """Return the median seconds of a step over a method's configurations."""
        return statistics.median(curve.seconds[self.rungs[-1]] for curve in self.methods[method]) / self.rungs[-1]


def share_error(score: float, rows: int) -> float | None:
    """Return the standard error of a proportion over ``rows`` rows; ``None`` for a score outside 0..1."""
    return math.sqrt(score * (1 - score) / rows) if 0 <= score <= 1 else None


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix == ".jsonl":
            lines = file.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last line may be incomplete
        else:
            rows = parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(str(file), [Problem("", f"cannot be read as a table of curves: {error}")]) from error
    if not rows:
        raise InputError(str(file), [Problem("", "is empty; it needs a row per configuration and step")])
    if missing := [name for name in COLUMNS if name not in rows[0]]:
        raise InputError(str(file), [Problem(name, "is missing; write a column of that name") for name in missing])
    return rows


def _rungs(steps: set[int]) -> tuple[int, ...]:
    rungs = [max(steps)]
    for step in sorted(steps, reverse=True):
        if step > 0 and step * REDUCTION_FACTOR <= rungs[0] and len(rungs) < MAX_RUNGS:
            rungs.insert(0, step)
    return tuple(rungs)


def _curve(method: str, number: int, rows: Sequence[Mapping[str, Any]], rungs: Sequence[int], scored: int) -> Curve:
    ordered = sorted(rows, key=lambda row: int(row["step"]))
    seconds, scores = {}, {}
    for rung in rungs:
        before = [row for row in ordered if int(row["step"]) <= rung]
        ended = int(ordered[-1]["step"]) < rung
        last = before[-1] if before else None
        seconds[rung] = _seconds(ordered, rung)
        scores[rung] = math.nan if last is None or ended or last["score"] is None else float(last["score"])
    params = ordered[0]["params"]
    params = dict(json.loads(params) if isinstance(params, str) else params or {})
    errors = {rung: error for rung in rungs if (error := share_error(scores[rung], scored)) is not None}
    return Curve(method=method, config_id=number, params=params, seconds=seconds, scores=scores, standard_errors=errors)


def _seconds(ordered: Sequence[Mapping[str, Any]], rung: int) -> float:
    """Return when a curve reached a rung, interpolated between the steps around it; its end if it ended before."""
    points = [(0, 0.0), *((int(row["step"]), float(row["seconds"])) for row in ordered)]
    for (step, time), (later, end) in pairwise(points):
        if rung <= later:
            return time + (end - time) * (rung - step) / (later - step)
    return points[-1][1]
