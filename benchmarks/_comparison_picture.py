"""The picture of the comparison: each task's methods as a column of points with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from orchestrator.report.scales import Scale
from orchestrator.report.svg import drawing, element, line, standalone, text

WIDTH, ROW, TOP, NAMES, GAP = 300.0, 16.0, 44.0, 130.0, 24.0


def draw(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the picture: filled points are test scores with intervals, hollow ones validation scores.

    Args:
        tasks: Rows of each task, the best first, with ``method``, ``validation`` and ``final``.
    """
    columns = {task: rows for task, rows in tasks.items() if rows}
    height = TOP + ROW * max(map(len, columns.values()), default=0) + 28
    width = (WIDTH + GAP) * len(columns)
    inside = [mark for k, (task, rows) in enumerate(columns.items()) for mark in _column(task, rows, k, height)]
    label = f"Scores by method on {', '.join(columns)}"
    legend = text(
        8, height - 6, "filled: test, mean of seeds, simultaneous 95 % interval; hollow: validation, best trial"
    )
    return standalone(drawing(width, height, label, [*inside, legend], kind="comparison"))


def _column(task: str, rows: Sequence[Mapping[str, Any]], number: int, height: float) -> Iterator[Markup]:
    left = number * (WIDTH + GAP) + NAMES
    values = [row["validation"] for row in rows]
    values += [end for row in rows if row["final"] for end in (row["final"].score, *row["final"].interval)]
    across = Scale.over(values, left, left + WIDTH - NAMES, margin=0.1)
    yield text(left, 16, f"{task}: macro-F1", kind="name")
    for value in across.ticks(4):
        yield line(across(value), TOP - 10, across(value), height - 28, "grid")
        yield text(across(value), TOP - 14, f"{value:g}", anchor="middle")
    for k, row in enumerate(rows):
        y = TOP + ROW * k + 6
        yield text(left - 8, y + 4, row["method"], anchor="end")
        final = row["final"]
        yield _point(
            across(row["validation"]), y, 3.0, "other", f"{row['method']} {row['validation']:.3f} on validation"
        )
        if final:
            low, high = map(across, final.interval)
            kind = "other" if final.gap else "tied"
            whisker = line(low, y, high, y, "whisker")
            yield element("g", whisker, class_=f"dot {kind}")
            yield _point(across(final.score), y, 4.5, "tied", f"{row['method']} {final.score:.3f} on test")


def _point(x: float, y: float, radius: float, kind: str, title: str) -> Markup:
    return element("g", element("title", title), element("circle", cx=x, cy=y, r=radius), class_=f"dot {kind}")
