"""``peft-sweep plan``: what would run, and at what size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.cli.output.budget import budget_words, cost_words, search_lines
from orchestrator.cli.output.console import console, program
from orchestrator.cli.output.lanes import lanes_words
from orchestrator.cli.output.methods import method_row, print_capabilities, print_wrapped
from orchestrator.cli.output.progress import task_line
from orchestrator.common.units import duration, number, size
from orchestrator.config import BackboneConfig
from orchestrator.planning.forecast import NO_FORECAST, SweepForecast
from orchestrator.planning.plan import SweepPlan
from orchestrator.warm_start import Prior


def print_plan(plan: SweepPlan, file: Path, forecast: SweepForecast = NO_FORECAST) -> None:
    """What a sweep would do, and what it is estimated to take."""
    config = plan.config
    for name, task in plan.tasks.items():
        console.print(task_line(name, task))
    kept = config.backbone.quantization + (" + double quantization" if _doubled(config.backbone) else "")
    console.print(f"backbone  {config.backbone.model} · {number(plan.parameters)} parameters · {kept}\n")
    for name, task in plan.tasks.items():
        if len(plan.tasks) > 1:
            console.print(name)
        print_capabilities(task.methods, forecast.tasks.get(name, {}))
        for one in task.methods:
            for note in one.notes if one.available else ():
                print_wrapped(f"note: {one.method}.{note}")
    console.print(f"\nbudget    {budget_words(config.budget)} · rungs at {', '.join(map(str, plan.rungs))} steps")
    console.print(f"cost      {cost_words(config.budget)}")
    if config.lanes.workers > 1:
        console.print(f"lanes     {lanes_words(config.lanes)}")
    if forecast.lane_bytes is not None:
        console.print(f"memory    up to {size(forecast.lane_bytes)} in a lane, beside the backbone")
    if forecast.lane_seconds is not None:
        console.print(
            f"time      {duration(forecast.lane_seconds)} of one lane like this machine's if no trial is stopped"
        )
    for line in search_lines(config.search):
        print_wrapped(line)
    _print_prior(plan.prior)
    console.print(f"next: {program()} run {file}")


def plan_json(plan: SweepPlan, forecast: SweepForecast = NO_FORECAST) -> dict[str, Any]:
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
                "methods": [
                    {**method_row(one), "notes": list(one.notes), "estimate": forecast.fields(name, one.method)}
                    for one in task.methods
                ],
            }
            for name, task in plan.tasks.items()
        },
        "budget": plan.config.resolved()["budget"],
        "lanes": plan.config.resolved()["lanes"],
        "estimated_lane_bytes": forecast.lane_bytes,
        "estimated_lane_seconds": forecast.lane_seconds,
        "rungs": list(plan.rungs),
        "search": plan.config.resolved()["search"],
        "warm_start": plan.prior.fields(),
    }


def _print_prior(prior: Prior) -> None:
    """Which earlier sweeps the search begins with, how alike they are, and what is taken from each."""
    for one in prior.origins:
        counts = prior.counts(one)
        taken = ", ".join(f"{count} of {method}" for method, count in counts.items()) or "nothing"
        print_wrapped(
            f"warm start of {one.task} from {one.sweep}/{one.earlier_task}, {one.similarity:.2f} similar: {taken}"
        )
    for note in prior.notes:
        print_wrapped(f"note: {note}")


def _doubled(backbone: BackboneConfig) -> bool:
    return backbone.double_quantization and backbone.quantization in ("nf4", "fp4")
