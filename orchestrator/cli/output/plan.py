"""Output of ``peft-sweep plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.cli.output.budget import budget_text, cost_text, search_lines
from orchestrator.cli.output.console import console, program
from orchestrator.cli.output.lanes import lanes_text
from orchestrator.cli.output.methods import method_row, print_capabilities, print_wrapped
from orchestrator.cli.output.progress import task_line
from orchestrator.common.units import duration, number, size
from orchestrator.config import BackboneConfig
from orchestrator.planning.forecast import NO_FORECAST, SweepForecast, slots
from orchestrator.planning.head_size import head_size
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.expected_set import expected_set
from orchestrator.warm_start import Prior


def print_plan(plan: SweepPlan, file: Path, forecast: SweepForecast = NO_FORECAST) -> None:
    """Print what a sweep would do, and its forecast.

    Args:
        plan: plan of the sweep.
        file: its configuration file.
        forecast: estimated memory and time.
    """
    config = plan.config
    for name, task in plan.tasks.items():
        console.print(task_line(name, task))
        for note in task.data.notes:
            print_wrapped(f"note: {name}: {note}")
        if cut := {split: count for split, count in plan.cut_rows(task).items() if count.cut}:
            length = config.training.max_length
            counts = "; ".join(f"{split} {count}" for split, count in cut.items())
            print_wrapped(f"note: {name}: rows of more than {length:,} tokens (training.max_length) are cut: {counts}")
    quantization = config.backbone.quantization + (
        " + double quantization" if _is_double_quantized(config.backbone) else ""
    )
    console.print(f"backbone  {config.backbone.model} · {number(plan.parameters)} parameters · {quantization}")
    for note in plan.notes:
        print_wrapped(f"note: {note}")
    _print_device(plan)
    console.print()
    for name, task in plan.tasks.items():
        if len(plan.tasks) > 1:
            console.print(name)
        print_capabilities(task.methods, forecast.tasks.get(name, {}))
        if task.room and task.estimates:
            print_wrapped(
                "rows at once: how much of a batch fits the GPU with rows of "
                f"{task.estimates.lengths.longest:,} tokens, the longest; the others follow, with accumulated "
                "gradients. * with checkpointed blocks, which are computed again in the backward pass"
            )
        for method_plan in task.methods:
            for note in method_plan.notes if method_plan.available else ():
                print_wrapped(f"note: {method_plan.method}.{note}")
    console.print(f"\nbudget    {budget_text(config.budget)} · rungs at {', '.join(map(str, plan.rungs))} steps")
    for line in expectations(plan):
        print_wrapped(f"expect    {line}")
    console.print(f"cost      {cost_text(config.budget)}")
    if config.lanes.workers > 1:
        console.print(f"lanes     {lanes_text(config.lanes)}")
    if forecast.lane_bytes is not None:
        console.print(f"memory    up to {size(forecast.lane_bytes)} per lane, in addition to the backbone")
    _print_head(plan)
    if forecast.lane_seconds is not None:
        where = "on a GPU of this machine" if plan.device.has_gpu else "in one lane like this machine"
        final = f"; {duration(forecast.final_seconds)} of it in the final" if forecast.final_seconds else ""
        print_wrapped(f"time      {duration(forecast.lane_seconds)} {where}, without early stopping{final}")
    elif not forecast.knows_speed:
        console.print("time      unknown until lanes have measured it: this machine does not have their GPU")
    for line in search_lines(config.search):
        print_wrapped(line)
    _print_prior(plan.prior)
    console.print(f"next: {program()} run {file}")


def _print_device(plan: SweepPlan) -> None:
    """Print the GPU of the lanes, and what the backbone leaves of it; nothing where lanes have none."""
    device, gpu = plan.device, plan.gpu
    if gpu is None:
        if device.has_gpu:
            print_wrapped(
                "gpu       of unknown memory, so methods that do not fit are not left out; write lanes.gpu_memory, as "
                "in 80GB, or plan with --address"
            )
        return
    name = f"{gpu.gpu.name}, " if gpu.gpu.name else ""
    share = f" · {device.share:g} of it per worker" if device.share < 1 else ""
    print_wrapped(
        f"gpu       {name}{size(gpu.gpu.memory_bytes)} ({device.source}){share} · backbone {size(gpu.backbone_bytes)}"
        f" · {size(gpu.room_bytes)} left for trials"
    )
    for small in gpu.too_small:
        print_wrapped(
            f"note: the backbone does not fit {small.name} with {size(small.memory_bytes)}: no lane can start there; "
            "leave such nodes out of the cluster"
        )
    if gpu.backbone_bytes > gpu.room_bytes:
        print_wrapped(
            "note: every worker holds the whole backbone: lanes are data parallel, and split no model over GPUs"
        )


def _print_head(plan: SweepPlan) -> None:
    """Print the processes on the driver's machine, if they need more memory than they should take."""
    head = head_size(plan.config.lanes, slots(plan))
    if head and head.is_too_large:
        print_wrapped(
            f"head      up to {head.processes} processes take {size(head.process_bytes)} on the driver's machine, "
            f"which has {size(head.machine_bytes)}; use a larger one, or lower lanes.max or lanes.pack"
        )


def expectations(plan: SweepPlan) -> list[str]:
    """Return how many methods the budget's trials can be expected to leave, by task; empty without such a budget."""
    trials, tasks = plan.config.budget.trials, len(plan.tasks)
    if not trials:
        return []
    found = {
        name: expected_set(trials // tasks, sum(method.available for method in task.methods))
        for name, task in plan.tasks.items()
    }
    return [f"{name}: {text}" if tasks > 1 else text for name, text in found.items() if text]


def plan_json(plan: SweepPlan, forecast: SweepForecast = NO_FORECAST) -> dict[str, Any]:
    """Return a plan and its forecast as JSON values."""
    cut = {name: plan.cut_rows(task) for name, task in plan.tasks.items()}
    return {
        "name": plan.config.name,
        "expected": expectations(plan),
        "backbone": {
            **plan.config.resolved()["backbone"],
            "parameters": plan.parameters,
            "notes": list(plan.notes),
        },
        "tasks": {
            name: {
                "type": task.type.name,
                "rows": task.data.rows,
                "labels": list(task.data.labels),
                "majority": task.data.majority,
                "baseline": task.data.baseline,
                "digest": task.data.digest,
                "notes": list(task.data.notes),
                "cut": {split: count.cut for split, count in cut[name].items()},
                "trained_tokens_cut": {split: count.lost for split, count in cut[name].items()},
                "methods": [
                    {
                        **method_row(method_plan),
                        "notes": list(method_plan.notes),
                        "estimate": forecast.fields(name, method_plan.method),
                    }
                    for method_plan in task.methods
                ],
            }
            for name, task in plan.tasks.items()
        },
        "budget": plan.config.resolved()["budget"],
        "lanes": plan.config.resolved()["lanes"],
        "device": plan.device.fields(),
        "gpu": plan.gpu.fields() if plan.gpu else None,
        "estimated_lane_bytes": forecast.lane_bytes,
        "estimated_lane_seconds": forecast.lane_seconds,
        "estimated_final_lane_seconds": forecast.final_seconds,
        "rungs": list(plan.rungs),
        "search": plan.config.resolved()["search"],
        "warm_start": plan.prior.fields(),
    }


def _print_prior(prior: Prior) -> None:
    """Print the earlier sweeps that a warm start uses, their similarity, and the number of configurations of each."""
    for origin in prior.origins:
        counts = prior.counts(origin)
        configurations = ", ".join(f"{count} of {method}" for method, count in counts.items()) or "nothing"
        print_wrapped(
            f"warm start of {origin.task} from {origin.sweep}/{origin.earlier_task} "
            f"(similarity {origin.similarity:.2f} of 1): {configurations}"
        )
    for note in prior.notes:
        print_wrapped(f"note: {note}")


def _is_double_quantized(backbone: BackboneConfig) -> bool:
    return backbone.double_quantization and backbone.quantization in ("nf4", "fp4")
