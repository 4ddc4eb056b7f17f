"""Scatter plot of score against a cost: every method as a point with its interval, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from orchestrator.common.metric import Metric
from orchestrator.report.scales import Scale
from orchestrator.report.svg import drawing, element, line, path, text

WIDTH, HEIGHT = 340.0, 262.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 330.0, 12.0, 218.0
LETTER, LINE = 6.2, 12.0
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A method in the plot.

    Args:
        label: name of the method.
        cost: position on the horizontal axis, above 0.
        score: position on the vertical axis.
        interval: interval of the score; ``None`` where there is none.
        kind: ``recommended``, ``tied`` or ``other``.
    """

    label: str
    cost: float
    score: float
    interval: tuple[float, float] | None = None
    kind: str = "other"


def scatter(
    points: Sequence[Point], *, cost: str, score: str, cost_text: Callable[[float], str], metric: Metric
) -> Markup:
    """Draw the plot; the horizontal axis is logarithmic.

    Args:
        points: points of the methods, at least one.
        cost: name of the horizontal axis.
        score: name of the vertical axis.
        cost_text: function from a cost to its text.
        metric: metric of the scores.
    """
    across = Scale.over([p.cost for p in points], LEFT + 8, RIGHT - 8, log=True, margin=0.1)
    up = Scale.over([v for p in points for v in (p.score, *(p.interval or ()))], BOTTOM - 4, TOP + 4)
    best = front(points, metric)
    names = ", ".join(p.label for p in best)
    label = f"{score} against {cost}, {len(points)} methods. Pareto front: {names}."
    placed = [(p, across(p.cost), up(p.score)) for p in points]
    steps = _steps(best, across, up)
    lines = [(x1, min(y1, y2) - 1, x2, max(y1, y2) + 1) for (x1, y1), (x2, y2) in pairwise(steps)]
    lines += [(x, up(p.interval[1]), x + 1, up(p.interval[0])) for p, x, _ in placed if p.interval]
    inside = [*_axes(across, up, cost, cost_text), path(steps, "front")]
    inside += [_dot(p, x, y, up) for p, x, y in placed]
    inside += _labels(placed, lines)
    return drawing(WIDTH, HEIGHT, label, inside, kind="scatter")


def front(points: Sequence[Point], metric: Metric) -> list[Point]:
    """Return the points that no other beats in cost and score, cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -metric.sign * p.score)):
        if not best or metric.sign * point.score > metric.sign * best[-1].score:
            best.append(point)
    return best


def decimals(ticks: Sequence[float]) -> int:
    """Return how many decimals make the values of an axis distinct."""
    step = min((abs(b - a) for a, b in pairwise(ticks)), default=1.0)
    return max(0, min(4, math.ceil(-math.log10(step) - 1e-9))) if step > 0 else 2


def _axes(across: Scale, up: Scale, cost: str, cost_text: Callable[[float], str]) -> Iterator[Markup]:
    ticks = up.ticks(5)
    for value in ticks:
        yield line(LEFT, up(value), RIGHT, up(value), "grid")
        yield text(LEFT - 6, up(value) + 4, f"{value:.{decimals(ticks)}f}", anchor="end")
    for value in across.ticks(5):
        yield line(across(value), BOTTOM, across(value), BOTTOM + 4, "axis")
        yield text(across(value), BOTTOM + 17, cost_text(value).replace(".0", ""), anchor="middle")
    yield line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")
    yield text((LEFT + RIGHT) / 2, HEIGHT - 8, cost, anchor="middle", kind="name")


def _steps(best: Sequence[Point], across: Scale, up: Scale) -> list[tuple[float, float]]:
    """Return the corners of the front: level up to the next point's cost, then up to its score."""
    places: list[tuple[float, float]] = []
    for point in best:
        if places:
            places.append((across(point.cost), places[-1][1]))
        places.append((across(point.cost), up(point.score)))
    return [*places, (RIGHT, places[-1][1])]


def _dot(point: Point, x: float, y: float, up: Scale) -> Markup:
    title = element("title", f"{point.label} {point.score:.3f}")
    whisker = line(x, up(point.interval[0]), x, up(point.interval[1]), "whisker") if point.interval else Markup("")
    return element("g", title, whisker, element("circle", cx=x, cy=y, r=5.0), class_=f"dot {point.kind}")


def _labels(placed: Sequence[tuple[Point, float, float]], lines: Sequence[Box]) -> Iterator[Markup]:
    """Place each label where it overlaps least; that of the recommended method first."""
    occupied = [*lines, *((x - 6, y - 6, x + 6, y + 6) for _, x, y in placed)]
    order = sorted(placed, key=lambda item: ("recommended", "tied", "other").index(item[0].kind))
    for point, x, y in order:
        width = len(point.label) * LETTER
        boxes = [
            (x + 8, y - 7, x + 8 + width, y + 5),
            (x - 8 - width, y - 7, x - 8, y + 5),
            (x - width / 2, y - 20, x + width / 2, y - 8),
            (x - width / 2, y + 8, x + width / 2, y + 20),
            (x + 8, y - 19, x + 8 + width, y - 7),
            (x + 8, y + 5, x + 8 + width, y + 17),
            (x - 8 - width, y - 19, x - 8, y - 7),
            (x - 8 - width, y + 5, x - 8, y + 17),
        ]
        box = min(boxes, key=lambda box: _overlap(box, occupied))
        occupied.append(box)
        yield text(box[0], box[1] + 10, point.label, kind=f"label {point.kind}")


def _overlap(box: Box, occupied: Sequence[Box]) -> float:
    """Return the area of a box on others, with a penalty for what lies outside the plot."""
    overlap = sum(
        max(0.0, min(box[2], x2) - max(box[0], x1)) * max(0.0, min(box[3], y2) - max(box[1], y1))
        for x1, y1, x2, y2 in occupied
    )
    outside = max(0.0, LEFT - box[0]) + max(0.0, box[2] - RIGHT) + max(0.0, TOP - box[1]) + max(0.0, box[3] - BOTTOM)
    return overlap + 20 * LINE * outside
