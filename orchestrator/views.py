"""What each command prints, for people and for machines."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

import methods
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig, SweepConfig
from orchestrator.display import SweepDisplay, duration, metric_name, number, size, task_line
from orchestrator.errors import InputError, Problem
from orchestrator.final import Finalist, TaskOutcome
from orchestrator.plan import MethodPlan, SweepPlan, probe_methods
from orchestrator.quiet import no_library_noise, terminal_stream
from orchestrator.sweep import Outcome, new_sweep_name, run_sweep
from orchestrator.tasks import TASK_TYPES

console = Console(highlight=False, soft_wrap=True)


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
    console.print(f"next: peft-sweep run {file}")


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
        source = resolve(BackboneConfig(model=backbone, quantization=quantization), Path.cwd())  # type: ignore[arg-type]
        probed, _ = probe_methods(source, TASK_TYPES[task], methods.names())
    return [_method_row(one) for one in probed]


def print_methods(rows: list[dict[str, Any]], tried: bool) -> None:
    """The methods as a table."""
    if tried:
        console.print(_methods_table([MethodPlan(method=row.pop("name"), **row) for row in rows]))
        return
    table = _table("method", "category", "merges", "reference")
    for row in rows:
        table.add_row(row["name"], row["category"], "yes" if row["mergeable"] else "no", row["reference"])
    console.print(table)
    console.print("\nwhich of them work on a backbone: peft-sweep methods --backbone HUB_ID_OR_FOLDER")


def watch_sweep(plan: SweepPlan, address: str | None) -> Outcome:
    """Run a sweep under the eyes of a person: live display, and Ctrl-C ends it in good order."""
    stop, name = threading.Event(), new_sweep_name(plan.config.name)
    handlers = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with terminal_stream() as stream, SweepDisplay(name, plan, stream) as display:
            return run_sweep(plan, sweep=name, address=address, watch=display.show, stop=stop)
    finally:
        for number_, handler in handlers.items():
            signal.signal(number_, handler)


def _stopper(stop: threading.Event) -> Any:
    def handle(number: int, frame: Any) -> None:
        """The first asks, the second does not."""
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    return handle


def print_outcome(outcome: Outcome, config: SweepConfig) -> None:
    """What came out, and what to type next."""
    if outcome.reason == "interrupted":
        ended = sum(r.state in ("complete", "pruned") for r in outcome.trials)
        console.print(f"Stopped after {ended} trials. Nothing is running any more.")
        console.print(f"  what was found so far  {outcome.folder}/journal.jsonl")
        return
    for name, task in outcome.tasks.items():
        _print_task(name, task)
    uri = config.mlflow.tracking_uri
    browse = f"mlflow ui --backend-store-uri {uri}" if "://" in uri and not uri.startswith("http") else uri
    first = next(iter(outcome.tasks.values())).registered
    extra = "" if uri == "sqlite:///mlflow.db" else f" --tracking-uri {uri}"
    console.print(f"  browse   {browse}")
    console.print(f"  check    peft-sweep models verify {first.reference}{extra}")
    console.print(f'  use      mlflow.pyfunc.load_model("models:/{first.reference}").predict(["some text"])')
    console.print(f"  details  {outcome.folder}")
    lanes = outcome.lanes.values()
    busy = sum(lane.busy for lane in lanes) / len(lanes) if lanes else 0.0
    stopped = sum(r.state == "pruned" for r in outcome.trials)
    console.print(
        f"{len(outcome.trials)} trials ({stopped} stopped early) in {duration(outcome.wall_seconds)}"
        f" on {len(outcome.lanes)} lanes, {busy:.0%} busy"
    )


def _print_task(name: str, task: TaskOutcome) -> None:
    data, champion = task.plan.data, task.champion
    metric = metric_name(data.config.metric)
    rows = data.splits["test"].num_rows
    method = champion.record.key.method
    console.print(f"{name}: {method} wins with {metric} {_score(champion)} on {rows:,} test rows.")
    others = [one for one in task.finalists[1:] if one.role == "best"]
    if others:
        console.print("  the others there: " + ", ".join(f"{o.record.key.method} {_score(o)}" for o in others))
    for one in task.finalists:
        if one.role == "default":
            console.print(f"  {method} untuned: {_score(one)}")
    if (accuracy := champion.metrics.get("accuracy")) is not None:
        console.print(f"  accuracy {accuracy:.3f}; always the commonest label would reach {data.majority:.3f}")
    facts = champion.facts
    console.print(
        f"  it trains {number(facts['trainable_parameters'])} parameters"
        f" and takes {size(facts['adapter_bytes'])} on disk"
    )
    registered = task.registered
    console.print(f"registered: {registered.name} version {registered.version}, alias {registered.alias}")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """What came out, for machines."""
    return {
        "sweep": outcome.sweep,
        "reason": outcome.reason,
        "tasks": {
            name: {
                "champion": f"{task.registered.name}@{task.registered.alias}",
                "version": task.registered.version,
                "method": task.champion.record.key.method,
                "trial": str(task.champion.record.key),
                "params": dict(task.champion.record.params),
                "metric": task.plan.data.config.metric,
                "score": task.champion.score,
                "interval": list(task.champion.interval),
                "metrics": task.champion.metrics,
                "majority": task.plan.data.majority,
                "finalists": [_finalist(one) for one in task.finalists],
                "trials": len(task.records),
                "lane_seconds": sum(record.lane_seconds for record in task.records),
                "wall_seconds": outcome.wall_seconds,
            }
            for name, task in outcome.tasks.items()
        },
        "trials": {str(r.key): r.state for r in outcome.trials},
        "lanes": {str(lane): status.busy for lane, status in outcome.lanes.items()},
        "folder": str(outcome.folder),
    }


def _finalist(one: Finalist) -> dict[str, Any]:
    return {
        "trial": str(one.record.key),
        "role": one.role,
        "validation": one.record.value,
        "score": one.score,
        "interval": list(one.interval),
        "facts": one.facts,
    }


def print_models(found: list[dict[str, Any]]) -> None:
    """The registered models."""
    if not found:
        console.print("no models are registered here; peft-sweep demo registers one")
        return
    table = _table("model", "version", "aliases", "method", "score", "backbone")
    for model in found:
        tags = model["tags"]
        row = (model["name"], str(model["version"]), ", ".join(model["aliases"]), tags.get("method", ""))
        table.add_row(*row, tags.get("score", ""), tags.get("backbone", ""))
    console.print(table)


def print_model(found: dict[str, Any]) -> None:
    """One registered model, as its card tells it."""
    aliases = ", ".join(found["aliases"]) or "none"
    console.print(f"{found['name']} version {found['version']} · aliases: {aliases}\n")
    console.print(Markdown(found["description"]))


def print_verification(found: Any) -> None:
    """Whether a registered model does what was recorded."""
    verdict = "agrees" if found.ok else "does NOT agree"
    console.print(
        f"{found.reference} {verdict}: {found.rows:,} test rows, largest difference {found.largest_difference:.1e},"
        f" score {found.score_now:.4f} (recorded {found.score_recorded:.4f})"
    )
    for note in found.notes:
        console.print(f"  {note}")


def _methods_table(plans: Any) -> Table:
    table = _table("method", "trainable", "%", "merges")
    for one in plans:
        if one.available:
            table.add_row(one.method, number(one.trainable), f"{one.percent:.2g}", "yes" if one.mergeable else "no")
        else:
            table.add_row(one.method, Text(f"left out: {one.reason}"))
    return table


def _method_row(one: MethodPlan) -> dict[str, Any]:
    row = asdict(one)
    return {"name": row.pop("method"), **row}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in ("%", "trials") else "left")
    return table


def _score(one: Finalist) -> str:
    return f"{one.score:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]"


def _doubled(backbone: BackboneConfig) -> bool:
    return backbone.double_quantization and backbone.quantization in ("nf4", "fp4")


def _budget(config: SweepConfig) -> str:
    budget = config.budget
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [f"{duration(budget.wall_time)} of wall time"] if budget.wall_time else []
    parts += [f"{budget.lane_hours:g} lane-hours"] if budget.lane_hours else []
    return " or ".join(parts)
