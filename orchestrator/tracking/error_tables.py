"""What a registered model gets wrong: scores per class, the confusion matrix, and the worst rows by their digests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.tasks import TaskType
from orchestrator.tasks.class_report import ClassReport
from orchestrator.tracking.evaluation import digests

CLASSES, CONFUSION, WORST = "classes.json", "confusion_matrix.json", "worst_rows.json"
WORST_ROWS = 20
"""Rows in the table of worst rows."""
CARD_CLASSES, CARD_MATRIX, CARD_ROWS = 20, 10, 5
"""Most classes of a card's table and of its confusion matrix, and its worst rows; the files have all."""
Table = tuple[list[str], list[list[Any]]]


@dataclass(frozen=True)
class ErrorTables:
    """The errors of one checkpoint on the test split, without texts and labels of rows.

    Args:
        classes: Counts per class; ``None`` where the task's type has none.
        error: What ``worst`` measures; empty where the task's type measures nothing of the kind.
        worst: Number, digest and error of rows, the worst first.
    """

    classes: ClassReport | None = None
    error: str = ""
    worst: tuple[tuple[int, str, float], ...] = ()

    @classmethod
    def of(cls, type_: TaskType, rows: pa.Table, predictions: pa.Table) -> ErrorTables:
        """Return the errors of predictions.

        Args:
            type_: The task's type, with its labels.
            rows: The test split.
            predictions: Predictions for the same rows in the same order.
        """
        classes, errors = type_.class_report(predictions), type_.row_errors(predictions)
        if errors is None:
            return cls(classes)
        order = np.argsort(-errors.values, kind="stable")[:WORST_ROWS]
        order = order[errors.values[order] > 0]
        worst = rows.take(pa.array(order))
        columns = (worst["row"].to_pylist(), digests(worst), errors.values[order].tolist())
        return cls(classes, errors.name, tuple(zip(*columns, strict=True)))

    def files(self) -> dict[str, str]:
        """Return the tables by file name, as MLflow reads tables."""
        tables = {CLASSES: self._class_table(), CONFUSION: self._matrix()}
        if self.worst:
            tables[WORST] = (["row", "digest", self.error], [list(row) for row in self.worst])
        return {name: _json(table) for name, table in tables.items() if table}

    def markdown(self) -> str:
        """Return the section of the model card; empty if there is nothing to tell."""
        parts = [*self._classes_text(), *self._worst_text()]
        return "\n\n".join(["## Errors on the test rows (this checkpoint)", *parts]) if parts else ""

    def _class_table(self) -> Table | None:
        if (report := self.classes) is None:
            return None
        columns = (report.names, report.precision, report.recall, report.f1, report.true, report.predicted)
        lines = [[name, *scores, int(true), int(given)] for name, *scores, true, given in zip(*columns, strict=True)]
        return ["class", "precision", "recall", "f1", report.unit, "predicted"], lines

    def _matrix(self) -> Table | None:
        if self.classes is None or self.classes.confusion is None:
            return None
        names = self.classes.names
        lines = [[name, *map(int, row)] for name, row in zip(names, self.classes.confusion, strict=True)]
        return ["true / predicted", *names], lines

    def _classes_text(self) -> Iterator[str]:
        if (table := self._class_table()) is None:
            return
        names, lines = table
        if len(lines) > CARD_CLASSES:
            yield f"The {CARD_CLASSES} of {len(lines):,} classes with the lowest F1:"
            lines = sorted(lines, key=lambda line: 2.0 if line[3] is None else line[3])[:CARD_CLASSES]
        yield _markdown(names, lines)
        if (matrix := self._matrix()) and len(matrix[1]) <= CARD_MATRIX:
            yield "Rows by their true class (lines) and the predicted one (columns):"
            yield _markdown(*matrix)

    def _worst_text(self) -> Iterator[str]:
        if self.worst:
            yield f"Rows that it is most wrong about, by the digests of their values ({self.error}):"
            yield _markdown(["row", "digest", "error"], [list(row) for row in self.worst[:CARD_ROWS]])


NO_ERRORS = ErrorTables()


def _json(table: Table) -> str:
    columns, data = table
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False)


def _markdown(names: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    rule = ["---", *["---:"] * (len(names) - 1)]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in [names, rule, *lines])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else " ".join(value.replace("|", r"\|").split())
