"""``peft-sweep run`` and ``peft-sweep demo``: a sweep under a person's eyes, and what came out of it."""

from __future__ import annotations

import signal
import threading
from typing import Any

from orchestrator.config import SweepConfig
from orchestrator.display import SweepDisplay, duration, metric_name, number, size
from orchestrator.final import Finalist, TaskOutcome
from orchestrator.locations import mask_secrets
from orchestrator.plan import SweepPlan
from orchestrator.quiet import terminal_stream
from orchestrator.sweep import Outcome, new_sweep_name, run_sweep
from orchestrator.views.console import console, program


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
    uri = mask_secrets(config.mlflow.tracking_uri)
    browse = f"{program('mlflow')} ui --backend-store-uri {uri}" if "://" in uri and not uri.startswith("http") else uri
    task = next(iter(outcome.tasks.values()))
    column = getattr(task.plan.data.config, "text", "prompt")
    extra = "" if uri == "sqlite:///mlflow.db" else f" --tracking-uri {uri}"
    console.print(f"  browse   {browse}")
    if first := task.registered:
        console.print(f"  check    {program()} models verify {first.reference}{extra}")
        console.print(
            f'  use      mlflow.pyfunc.load_model("models:/{first.reference}").predict([{{"{column}": "..."}}])'
        )
    console.print(f"  details  {outcome.folder}")
    if outcome.unmirrored:
        console.print(f"MLflow has not taken {outcome.unmirrored} events; they are in {outcome.folder}/journal.jsonl")
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
    if made := task.registered:
        console.print(f"registered: {made.name} version {made.version}, alias {made.alias}")
    else:
        console.print(f"NOT registered: {task.unregistered}")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """What came out, for machines."""
    return {
        "sweep": outcome.sweep,
        "reason": outcome.reason,
        "tasks": {
            name: {
                "champion": f"{task.registered.name}@{task.registered.alias}" if task.registered else None,
                "version": task.registered.version if task.registered else None,
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


def _score(one: Finalist) -> str:
    return f"{one.score:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]"
