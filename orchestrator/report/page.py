"""The page of a report: the values that the template shows, and its rendering."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.common.metric import Metric
from orchestrator.common.units import duration, number, size
from orchestrator.common.uris import mask_secrets
from orchestrator.report.costs import costs
from orchestrator.report.curves import panels
from orchestrator.report.early_ends import EarlyEnd, early_ends
from orchestrator.report.history import History
from orchestrator.report.importance import Importance
from orchestrator.report.method_rows import MethodRow, from_tests, method_rows
from orchestrator.report.scales import Scale
from orchestrator.report.scatter import Point, decimals, scatter
from orchestrator.report.svg import STYLE
from orchestrator.selection.looks import level_text, look_text
from orchestrator.selection.recommend import cost, measured_text
from orchestrator.selection.selection import Selection
from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.cut_rows import CutRows

NONE = "\N{EN DASH}"
FOLDER = Path(__file__).parent
PLOTTED_COSTS = {
    "trainable_parameters": ("trainable parameters", number),
    "peak_memory_bytes": ("memory while training, above the backbone", size),
    "train_seconds": ("training time, minutes:seconds", duration),
}
ENDINGS = {
    "finished": "finished",
    "budget": "finished when its budget was spent",
    "interrupted": "interrupted",
    "failed": "failed",
    "unfinished": "not ended: still running, or its driver died",
}


@dataclass(frozen=True)
class TaskPage:
    """The part of the page about one task.

    Args:
        history: history of the sweep.
        name: name of the task.
        importance: importance of the hyperparameters by study.
    """

    history: History
    name: str
    importance: Mapping[str, Importance]

    @property
    def data(self) -> Mapping[str, Any]:
        """The journal's description of the task: metric, rows, labels, majority, digest."""
        return self.history.tasks[self.name]

    @property
    def baseline(self) -> str:
        """How one answer for every row scores; empty where there is no such answer."""
        majority, value = self.data.get("majority"), self.data.get("baseline")
        if majority:
            return f"majority class: accuracy {majority:.3f}"
        type_ = TASK_TYPES.get(self.history.config.get("tasks", {}).get(self.name, {}).get("type", ""))
        if value is None or type_ is None:
            return ""
        return f"{type_.baseline_name}: {type_.metric(type_.baseline_metric).label} {value:.3f}"

    @property
    def cut_rows(self) -> Mapping[str, str]:
        """What each split lost because of rows that are too long, by split, for those that lost something."""
        return {split: str(CutRows.of_fields(fields)) for split, fields in self.data.get("cut", {}).items()}

    @property
    def undecided(self) -> list[str]:
        """Methods that are behind, by no more than what more trials may bring them."""
        return [result.method for result in self.selection.scored if result.undecided] if self.selection else []

    @property
    def collapsed(self) -> list[str]:
        """Methods with seeds that answer every test row alike, and how many."""
        return [f"{row.method}: {row.result.collapse}" for row in self.scored if row.result and row.result.collapse]

    @property
    def metric(self) -> Metric:
        """The metric of the task."""
        return self.history.metric(self.name)

    @property
    def compared(self) -> bool:
        """Whether the methods were compared with intervals."""
        return self.name in self.history.selections

    @cached_property
    def selection(self) -> Selection | None:
        """The sweep's selection, or what follows from its test scores where it made none."""
        return self.history.selections.get(self.name) or from_tests(self.history, self.name)

    @cached_property
    def rows(self) -> list[MethodRow]:
        """Rows of all methods."""
        return method_rows(self.history, self.name, self.selection)

    @property
    def scored(self) -> list[MethodRow]:
        """Rows of the methods with a test score."""
        return [row for row in self.rows if row.result]

    @property
    def leader(self) -> MethodRow | None:
        """Row of the recommended method, or of the best so far at the latest rung."""
        return next((row for row in self.rows if row.best), None)

    @property
    def params(self) -> Mapping[str, Any]:
        """Parameters of the recommended configuration."""
        best = self.leader.best if self.leader else None
        trial = self.selection.trial if self.selection else str(best.key) if best else ""
        return next((record.params for record in self.history.trials if str(record.key) == trial), {})

    @cached_property
    def scale(self) -> Scale:
        """Scale from scores to percent of the width, over the ends of all intervals."""
        ends = [end for row in self.scored if row.result for end in (*row.result.interval, *row.result.seed_scores)]
        if self.selection and self.selection.baseline:
            ends.append(self.selection.baseline.score)
        return Scale.over(ends, 0.0, 100.0, margin=0.08)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions of the ticks on that scale, with their text."""
        ticks = self.scale.ticks(4)
        return [(self.scale(value), f"{value:.{decimals(ticks)}f}") for value in ticks]

    @cached_property
    def charts(self) -> list[tuple[str, Markup]]:
        """Plots of the score against each measured cost: name of the measurement, and drawing."""
        charts = []
        for name, (label, text) in PLOTTED_COSTS.items():
            points = [point for row in self.rows if (point := self._point(row, name))]
            if points:
                score = self.metric.label if self.scored else f"{self.metric.label} on validation"
                charts.append((name, scatter(points, cost=label, score=score, cost_text=text, metric=self.metric)))
        return charts

    def _point(self, row: MethodRow, measurement: str) -> Point | None:
        value, score = row.measurements.get(measurement, 0.0), row.shown_score
        if value <= 0 or not math.isfinite(score) or bool(self.scored) != bool(row.result):
            return None
        kind = row.status if row.may_be_best else "other"
        interval = row.result.interval if row.result else None
        return Point(label=row.method, cost=value, score=score, interval=interval, kind=kind)

    @cached_property
    def curves(self) -> dict[str, Markup]:
        """Learning curves, by method."""
        return panels(self.history.of_task(self.name), metric=self.metric, steps=self.history.steps)

    @property
    def level(self) -> str:
        """Level of the intervals."""
        return level_text(self.selection.look if self.selection else 1)

    @property
    def look(self) -> str:
        """Which look at the test rows it is, and what that costs; empty for the first."""
        return look_text(self.selection.look) if self.selection else ""

    @property
    def next_trials(self) -> str:
        """Methods that further trials would go to, with their numbers; empty where the journal does not say."""
        trials = {
            study.rpartition("/")[2]: count
            for study, count in self.history.next_trials.items()
            if study.rpartition("/")[0] == self.name
        }
        return ", ".join(f"{method} {count}" for method, count in trials.items())

    @property
    def early_ends(self) -> list[EarlyEnd]:
        """Trials and methods that did not reach the end."""
        drops = {study.rpartition("/")[2]: drop for study, drop in self.history.drops.items()
                 if study.rpartition("/")[0] == self.name}  # fmt: skip
        return early_ends(self.rows, self.history.steps, drops)

    @property
    def importances(self) -> list[tuple[str, Importance]]:
        """Importance of the hyperparameters by method, in the order of the rows."""
        pairs = [(row.method, self.importance.get(f"{self.name}/{row.method}")) for row in self.rows]
        return [(method, importance) for method, importance in pairs if importance]

    @property
    def unknown_importances(self) -> list[str]:
        """Methods without an importance, and why."""
        return [f"{method} ({importance.note})" for method, importance in self.importances if importance.note]

    @property
    def other_metrics(self) -> list[str]:
        """Names of the metrics that were scored beside the task's."""
        return list(dict.fromkeys(name for row in self.scored if row.result for name in row.result.other_scores))

    @property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """A few test rows, with what the finalists wrote."""
        return self.history.samples.get(self.name, ())

    @property
    def registered(self) -> list[Mapping[str, Any]]:
        """``registered`` events of the task."""
        return [event for event in self.history.registered if event["task"] == self.name]


def page(history: History, importance: Mapping[str, Importance]) -> str:
    """Return the whole page as HTML.

    Args:
        history: history of the sweep.
        importance: importance of the hyperparameters by study.
    """
    tasks = [TaskPage(history, name, importance) for name in history.tasks]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        number=number, size=size, duration=duration, score=_score, value=_value, latency=_latency, masked=mask_secrets,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        history=history,
        tasks=tasks,
        costs=costs(history),
        ending=ENDINGS.get(history.reason, history.reason),
        began=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(history.begin)),
        config=_yaml(history.config),
        versions=history.description.get("versions", {}),
        backbone=history.description.get("backbone", {}),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8") + STYLE.read_text(encoding="utf-8")),
    )


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml

    return mask_secrets(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)) if config else ""


def _score(value: float) -> str:
    """Return a score with three decimals, which is more than intervals support."""
    return f"{value:.3f}" if math.isfinite(value) else NONE


def _value(value: Any) -> str:
    """Return the value of a hyperparameter."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def _latency(measurements: Mapping[str, float]) -> str:
    return measured_text("latency", measurements) if math.isfinite(cost(measurements, "latency")) else NONE
