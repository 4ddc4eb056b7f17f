"""``peft-sweep plan`` and ``peft-sweep methods``: what would run, and at what size."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

import methods
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig, SweepConfig
from orchestrator.display import duration, number, task_line
from orchestrator.errors import InputError, Problem
from orchestrator.plan import MethodPlan, SweepPlan, probe_methods
from orchestrator.quiet import no_library_noise
from orchestrator.tasks import TASK_TYPES
from orchestrator.views.console import console, program, table


def print_plan(plan: SweepPlan, file: Path) -> None:
    """What a sweep would do."""
    config = plan.config
    for name, task in plan.tasks.items():
        console.print(task_line(name, task))
    kept = config.backbone.quantization + (" + double quantization" if _doubled(config.backbone) else "")
    console.print(f"backbone  {config.backbone.model} · {number(plan.parameters)} parameters · {kept}\n")
    for name, task in plan.tasks.items():
        if len(plan.tasks) > 1:
            console.print(name)
        console.print(_methods_table(task.methods))
    console.print(f"\nbudget    {_budget(config)} · rungs at {', '.join(map(str, plan.rungs))} steps")
    console.print(f"next: {program()} run {file}")


def plan_json(plan: SweepPlan) -> dict[str, Any]:
    """The same for machines."""
    return {
        "name": plan.config.name,
        "backbone": {**plan.config.resolved()["backbone"], "parameters": plan.parameters},
        "tasks": {
            name: {
                "type": task.type.name,
                "rows": {split: rows.num_rows for split, rows in task.data.splits.items()},
                "labels": list(task.data.labels),
                "majority": task.data.majority,
                "digest": task.data.digest,
                "methods": [_method_row(one) for one in task.methods],
            }
            for name, task in plan.tasks.items()
        },
        "budget": plan.config.resolved()["budget"],
        "rungs": list(plan.rungs),
    }


def method_rows(backbone: str, quantization: str, task: str) -> list[dict[str, Any]]:
    """Every method, tried on a backbone where one is named."""
    if task not in TASK_TYPES:
        raise InputError("--task", [Problem(task, f"unknown task type; there are {', '.join(TASK_TYPES)}")])
    if not backbone:
        specs = [methods.get(name) for name in methods.names()]
        known = [
            MethodPlan(
                method=spec.name,
                available=task in spec.tasks,
                reason="" if task in spec.tasks else f"cannot train {task} tasks",
                mergeable=spec.supports_merge,
                category=spec.category.value,
                reference=spec.reference,
            )
            for spec in specs
        ]
        return [_method_row(one) for one in known]
    if quantization not in ("nf4", "fp4", "int8", "none"):
        raise InputError("--quantization", [Problem(quantization, "write nf4, fp4, int8 or none")])
    with no_library_noise():
        settings = BackboneConfig(model=backbone, quantization=quantization)  # type: ignore[arg-type]
        labels = 2 if task == "classification" else 0
        source = resolve(settings, Path.cwd())
        probed, _ = probe_methods(source, TASK_TYPES[task], methods.names(), labels, settings.quantization)
    return [_method_row(one) for one in probed]


def print_methods(rows: list[dict[str, Any]], tried: bool) -> None:
    """The methods as a table."""
    if tried:
        console.print(_methods_table([MethodPlan(method=row.pop("name"), **row) for row in rows]))
        return
    shown = table("method", "category", "merges", "reference")
    for row in rows:
        shown.add_row(row["name"], row["category"], "yes" if row["mergeable"] else "no", row["reference"])
    console.print(shown)
    console.print(f"\nwhich of them work on a backbone: {program()} methods --backbone HUB_ID_OR_FOLDER")


def _methods_table(plans: Any) -> Table:
    shown = table("method", "trainable", "%", "merges")
    for one in plans:
        if one.available:
            shown.add_row(one.method, number(one.trainable), _percent(one.percent), "yes" if one.mergeable else "no")
        else:
            shown.add_row(one.method, Text(f"left out: {one.reason}"))
    return shown


def _method_row(one: MethodPlan) -> dict[str, Any]:
    row = asdict(one)
    return {"name": row.pop("method"), **row}


def _doubled(backbone: BackboneConfig) -> bool:
    return backbone.double_quantization and backbone.quantization in ("nf4", "fp4")


def _budget(config: SweepConfig) -> str:
    budget = config.budget
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [f"{duration(budget.wall_time)} of wall time"] if budget.wall_time else []
    parts += [f"{budget.lane_hours:g} lane-hours"] if budget.lane_hours else []
    return " or ".join(parts)


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
