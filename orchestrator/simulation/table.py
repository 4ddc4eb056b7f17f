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
RUNGS, FACTOR = 3, 2
VALIDATION_ROWS = 768
"""Behind every score of a table that has no column ``rows``."""


@dataclass(frozen=True)
class Table:
    """An exhaustive search of one task.

    Args:
        task: its name.
        rungs: optimizer steps at which trials are judged.
        methods: the curves of each method, in the order of their numbers.
        rows: that were scored for each score.
        error: standard error of a score, by resampling those rows; ``None`` where nobody has.
    """

    task: str
    rungs: tuple[int, ...]
    methods: Mapping[str, tuple[Curve, ...]]
    rows: int = VALIDATION_ROWS
    error: float | None = None

    @staticmethod
    def read(files: Iterable[Path]) -> list[Table]:
        """The tables of some files, one per task, in the order in which the tasks appear.

        Args:
            files: parquet, or a JSON object per line, with the columns :data:`COLUMNS` and perhaps ``rows``, the number
                of validation rows, and ``standard_error``, that of a score.

        Raises:
            InputError: if a file cannot be read, lacks a column, or holds what is no curve.
        """
        tasks: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for file in files:
            for row in _rows(file):
                tasks[str(row["task"])].append(row)
        return [Table.of(task, rows) for task, rows in tasks.items()]

    @staticmethod
    def of(task: str, rows: Sequence[Mapping[str, Any]]) -> Table:
        """The table of one task's rows.

        Every second step or fewer are rungs, counted from the last, and three at most, as in a sweep by default: of a
        curve with a score after each of 50 epochs, those after 12, 25 and 50. A curve that has no score at a rung has
        its last one before it there, and none if it ended before.
        """
        rungs = _thinned({int(row["step"]) for row in rows})
        scored, error = int(rows[0].get("rows") or VALIDATION_ROWS), rows[0].get("standard_error")
        grouped: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            grouped[str(row["method"]), int(row["config_id"])].append(row)
        methods: dict[str, list[Curve]] = defaultdict(list)
        for (method, number), own in sorted(grouped.items(), key=lambda one: one[0][1]):
            methods[method].append(_curve(method, number, own, rungs, scored))
        return Table(task, rungs, {method: tuple(methods[method]) for method in sorted(methods)}, scored, error)

    @property
    def cost(self) -> float:
        """Lane-seconds of training everything to the end."""
        return sum(curve.seconds[self.rungs[-1]] for curves in self.methods.values() for curve in curves)

    def best(self, method: str) -> float:
        """A method's best score at the last rung; minus infinity if it has none."""
        scores = [curve.scores[self.rungs[-1]] for curve in self.methods[method]]
        return max((score for score in scores if math.isfinite(score)), default=-math.inf)

    def standard_error(self, score: float) -> float | None:
        """The recorded one, or that of a share of the validation rows; ``None`` if the score cannot be one."""
        return share_error(score, self.rows) if self.error is None else self.error

    def step_seconds(self, method: str) -> float:
        """What a step of a method takes in the middle of its configurations: known before a sweep, as sizes are."""
        return statistics.median(curve.seconds[self.rungs[-1]] for curve in self.methods[method]) / self.rungs[-1]


def share_error(score: float, rows: int) -> float | None:
    """The standard error of a share of so many rows; ``None`` for what is no share."""
    return math.sqrt(score * (1 - score) / rows) if 0 <= score <= 1 else None


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix == ".jsonl":
            lines = file.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half written
        else:
            rows = parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(str(file), [Problem("", f"cannot be read as a table of curves: {error}")]) from error
    if not rows:
        raise InputError(str(file), [Problem("", "is empty; it needs a row per configuration and step")])
    if missing := [name for name in COLUMNS if name not in rows[0]]:
        raise InputError(str(file), [Problem(name, "is missing; write a column of that name") for name in missing])
    return rows


def _thinned(steps: set[int]) -> tuple[int, ...]:
    kept = [max(steps)]
    for step in sorted(steps, reverse=True):
        if step > 0 and step * FACTOR <= kept[0] and len(kept) < RUNGS:
            kept.insert(0, step)
    return tuple(kept)


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
    """When a rung was reached: on the line between the two steps around it; what ended before took no longer."""
    known = [(0, 0.0), *((int(row["step"]), float(row["seconds"])) for row in ordered)]
    for (step, time), (later, end) in pairwise(known):
        if rung <= later:
            return time + (end - time) * (rung - step) / (later - step)
    return known[-1][1]
