"""``peft-sweep plan``: what would run, and at what size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.config import BackboneConfig, SweepConfig
from orchestrator.display import task_line
from orchestrator.plan import SweepPlan
from orchestrator.quantities import duration, number
from orchestrator.views.catalogue import method_row, print_capabilities, print_wrapped
from orchestrator.views.console import console, program
from orchestrator.warm_start import Prior


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
        print_capabilities(task.methods)
        for one in task.methods:
            for note in one.notes if one.available else ():
                print_wrapped(f"note: {one.method}.{note}")
    console.print(f"\nbudget    {_budget(config)} · rungs at {', '.join(map(str, plan.rungs))} steps")
    _print_prior(plan.prior)
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
                "methods": [{**method_row(one), "notes": list(one.notes)} for one in task.methods],
            }
            for name, task in plan.tasks.items()
        },
        "budget": plan.config.resolved()["budget"],
        "rungs": list(plan.rungs),
        "warm_start": plan.prior.fields(),
    }


def _print_prior(prior: Prior) -> None:
    """Which earlier sweeps the search begins with, how alike they are, and what is taken from each."""
    for one in prior.origins:
        counts = prior.taken(one)
        taken = ", ".join(f"{count} of {method}" for method, count in counts.items()) or "nothing"
        print_wrapped(
            f"warm start of {one.task} from {one.sweep}/{one.earlier_task}, {one.similarity:.2f} similar: {taken}"
        )
    for note in prior.notes:
        print_wrapped(f"note: {note}")


def _doubled(backbone: BackboneConfig) -> bool:
    return backbone.double_quantization and backbone.quantization in ("nf4", "fp4")


def _budget(config: SweepConfig) -> str:
    budget = config.budget
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [f"{duration(budget.wall_time)} of wall time"] if budget.wall_time else []
    parts += [f"{budget.lane_hours:g} lane-hours"] if budget.lane_hours else []
    return " or ".join(parts)
