"""The page: what a template needs, and the template filled in."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.common.units import duration, metric_name, number, size
from orchestrator.common.uris import mask_secrets
from orchestrator.report.costs import Costs, costs
from orchestrator.report.curves import panels
from orchestrator.report.departures import Departure, departures
from orchestrator.report.history import History
from orchestrator.report.importance import Importance
from orchestrator.report.lines import MethodLine, from_tests, method_lines
from orchestrator.report.scales import Scale
from orchestrator.report.scatter import Point, decimals, scatter
from orchestrator.report.svg import STYLE
from orchestrator.selection.recommend import amount, cost
from orchestrator.selection.selection import Selection

NONE = "\N{EN DASH}"
HERE = Path(__file__).parent
AGAINST = {
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
    """One task's part of the page.

    Args:
        history: of the sweep.
        name: the task's.
        importance: by study.
    """

    history: History
    name: str
    importance: Mapping[str, Importance]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the journal says of the task."""
        return self.history.tasks[self.name]

    @property
    def metric(self) -> str:
        """As people write it."""
        return metric_name(self.facts.get("metric", "score"))

    @property
    def higher_is_better(self) -> bool:
        """The metric's direction."""
        return bool(self.facts.get("higher_is_better", True))

    @property
    def compared(self) -> bool:
        """Whether the methods were compared with intervals."""
        return self.name in self.history.selections

    @cached_property
    def selection(self) -> Selection | None:
        """What the sweep says, or what can be told from its scores on test."""
        return self.history.selections.get(self.name) or from_tests(self.history, self.name)

    @cached_property
    def lines(self) -> list[MethodLine]:
        """Every method."""
        return method_lines(self.history, self.name, self.selection)

    @property
    def scored(self) -> list[MethodLine]:
        """Those with a score on test."""
        return [line for line in self.lines if line.entry]

    @property
    def leader(self) -> MethodLine | None:
        """The recommended method, or the furthest and best so far."""
        return next((line for line in self.lines if line.best), None)

    @property
    def params(self) -> Mapping[str, Any]:
        """The recommended configuration."""
        best = self.leader.best if self.leader else None
        wanted = self.selection.trial if self.selection else str(best.key) if best else ""
        return next((record.params for record in self.history.trials if str(record.key) == wanted), {})

    @cached_property
    def scale(self) -> Scale:
        """From every interval's ends to percents."""
        ends = [end for line in self.scored if line.entry for end in (*line.entry.interval, *line.entry.scores)]
        return Scale.over(ends, 0.0, 100.0, margin=0.08)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places on that scale, and what stands there."""
        ticks = self.scale.ticks(4)
        return [(self.scale(value), f"{value:.{decimals(ticks)}f}") for value in ticks]

    @cached_property
    def charts(self) -> list[tuple[str, Markup]]:
        """Score against each cost that was measured: the fact's name and the drawing."""
        found = []
        for fact, (words, told) in AGAINST.items():
            points = [point for line in self.lines if (point := self._point(line, fact))]
            if points:
                basis = self.metric if self.scored else f"{self.metric} on validation"
                drawn = scatter(points, cost=words, score=basis, told=told, higher_is_better=self.higher_is_better)
                found.append((fact, drawn))
        return found

    def _point(self, line: MethodLine, fact: str) -> Point | None:
        value = line.measurements.get(fact, 0.0)
        if value <= 0 or not math.isfinite(line.score) or bool(self.scored) != bool(line.entry):
            return None
        kind = line.status if line.may_be_best else "other"
        interval = line.entry.interval if line.entry else None
        return Point(label=line.method, cost=value, score=line.score, interval=interval, kind=kind)

    @cached_property
    def curves(self) -> dict[str, Markup]:
        """Learning curves, by method."""
        own = self.history.of_task(self.name)
        return panels(own, metric=self.metric, steps=self.history.steps, higher_is_better=self.higher_is_better)

    @property
    def departures(self) -> list[Departure]:
        """Who went, when and why."""
        drops = {study.rpartition("/")[2]: drop for study, drop in self.history.drops.items()
                 if study.rpartition("/")[0] == self.name}  # fmt: skip
        return departures(self.lines, self.history.steps, drops)

    @property
    def importances(self) -> list[tuple[str, Importance]]:
        """By method, in the order of the methods."""
        found = [(line.method, self.importance.get(f"{self.name}/{line.method}")) for line in self.lines]
        return [(method, one) for method, one in found if one]

    @property
    def unknown_importances(self) -> list[str]:
        """Of which methods none can be told, and why."""
        return [f"{method} ({one.note})" for method, one in self.importances if one.note]

    @property
    def registered(self) -> list[Mapping[str, Any]]:
        """Versions in the registry, the recommended one first."""
        return [event for event in self.history.registered if event["task"] == self.name]


def page(history: History, importance: Mapping[str, Importance]) -> str:
    """The whole page.

    Args:
        history: what happened.
        importance: of hyperparameters, by study.
    """
    tasks = [TaskPage(history, name, importance) for name in history.tasks]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters.update(
        number=number, size=size, duration=duration, metric=metric_name, score=_score, value=_value, latency=_latency,
        masked=mask_secrets,
    )  # fmt: skip
    spent: Costs = costs(history)
    return environment.get_template("page.html.j2").render(
        history=history,
        tasks=tasks,
        costs=spent,
        ending=ENDINGS.get(history.reason, history.reason),
        began=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(history.begin)),
        config=_yaml(history.config),
        versions=history.description.get("versions", {}),
        backbone=history.description.get("backbone", {}),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8") + STYLE.read_text(encoding="utf-8")),
    )


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml

    return mask_secrets(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)) if config else ""


def _score(value: float) -> str:
    """Three decimals, more digits than anyone can rely on."""
    return f"{value:.3f}" if math.isfinite(value) else NONE


def _value(value: Any) -> str:
    """A hyperparameter."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def _latency(facts: Mapping[str, float]) -> str:
    if facts.get("mergeable"):
        return "none"
    added = cost(facts, "latency")
    return (
        amount("latency", added).removesuffix(" latency").replace("no added", "none") if math.isfinite(added) else NONE
    )
