"""Learning curves: a small panel for each method, all with the same axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialRecord
from orchestrator.common.units import number
from orchestrator.report.scales import Scale
from orchestrator.report.scatter import decimals
from orchestrator.report.svg import drawing, element, line, path, text

WIDTH, HEIGHT = 226.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 218.0, 24.0, 126.0
LOG_RATIO = 20.0
"""Ratio of the largest to the smallest loss above which the axis is logarithmic."""


def panels(records: Sequence[TrialRecord], *, metric: Metric, steps: int) -> dict[str, Markup]:
    """Draw a panel for each method that has a value, best method first.

    Args:
        records: trials of one task.
        metric: metric of their values.
        steps: optimizer steps of a full trial.
    """
    values = [v for r in records for v in r.values.values() if math.isfinite(v)]
    if not values:
        return {}
    log = min(values) > 0 and max(values) / min(values) > LOG_RATIO and not metric.higher_is_better
    across, up = Scale(0.0, float(steps), LEFT, RIGHT - 4), Scale.over(values, BOTTOM, TOP + 4, log=log)
    by_method: dict[str, list[TrialRecord]] = {}
    for record in records:
        if any(map(math.isfinite, record.values.values())):
            by_method.setdefault(record.key.method, []).append(record)
    up_is_better = metric.higher_is_better
    leaders = {name: max(trials, key=lambda trial: trial.rank(higher_is_better=up_is_better))
               for name, trials in by_method.items()}  # fmt: skip
    order = sorted(leaders, key=lambda name: leaders[name].rank(higher_is_better=up_is_better), reverse=True)
    return {name: _panel(name, by_method[name], leaders[name], metric, across, up) for name in order}


def _panel(
    method: str, trials: Sequence[TrialRecord], leader: TrialRecord, metric: Metric, across: Scale, up: Scale
) -> Markup:
    stopped = sum(trial.state == "pruned" for trial in trials)
    label = (
        f"{method}: {metric.label} on validation by optimizer step, {_count(len(trials))}, {stopped} stopped early;"
        f" the best, trial {leader.key.number}, has {leader.value:.3f} after {leader.step} steps."
    )
    others = [trial for trial in trials if trial is not leader]
    inside = [
        text(LEFT, 13, method, kind="name"),
        text(RIGHT - 4, 13, _count(len(trials)), anchor="end"),
        *_axes(across, up),
        *(mark for record in others for mark in _curve(record, across, up, "curve")),
        *_curve(leader, across, up, "curve leader"),
    ]
    return drawing(WIDTH, HEIGHT, label, inside, kind="panel")


def _axes(across: Scale, up: Scale) -> Iterator[Markup]:
    ticks = up.ticks(3)
    for value in ticks:
        yield line(LEFT, up(value), RIGHT, up(value), "grid")
        yield text(LEFT - 5, up(value) + 4, number(value) if up.log else f"{value:.{decimals(ticks)}f}", anchor="end")
    yield line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")
    for step, anchor in ((0.0, "middle"), (across.high / 2, "middle"), (across.high, "end")):
        yield text(across(step), BOTTOM + 15, f"{step:.0f}", anchor=anchor)


def _curve(record: TrialRecord, across: Scale, up: Scale, kind: str) -> Iterator[Markup]:
    places = [(across(step), up(value)) for step, value in sorted(record.values.items()) if math.isfinite(value)]
    if not places:
        return
    ending = "" if record.state == "complete" else " early"
    if len(places) > 1:
        yield path(places, kind + ending)
    x, y = places[-1]
    yield element("circle", cx=x, cy=y, r=2.6 if "leader" in kind else 1.8, class_=f"end {kind}{ending}")


def _count(trials: int) -> str:
    return f"{trials} trial{'s' if trials != 1 else ''}"
