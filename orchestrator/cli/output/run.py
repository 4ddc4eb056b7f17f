"""``peft-sweep run`` and ``peft-sweep demo``: a sweep under a person's eyes, and what came out of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.cli.output.budget import spent_words
from orchestrator.cli.output.console import console, program
from orchestrator.cli.output.progress import SweepDisplay
from orchestrator.cli.output.select import evidence_words, print_overall, score_words
from orchestrator.common.output_capture import terminal_stream
from orchestrator.common.storage import Storage
from orchestrator.common.units import duration, metric_name, number, size
from orchestrator.common.uris import mask_secrets
from orchestrator.config import SweepConfig
from orchestrator.final.results import Finalist, TaskOutcome
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.overall import overall
from orchestrator.selection.selection import Selection
from orchestrator.sweep.runner import run_sweep
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Outcome, Watch
from orchestrator.tracking.sweeps import local_folder, new_sweep_name

Run = Callable[[Watch, threading.Event], Outcome]


def watch_sweep(plan: SweepPlan, cluster: Cluster) -> Outcome:
    """Run a sweep under the eyes of a person: live display, and Ctrl-C ends it in good order."""
    name = new_sweep_name(plan.config.name)
    folder = local_folder(Storage.at(plan.config.storage), name)
    return watch(
        name, plan, folder, lambda see, stop: run_sweep(plan, sweep=name, cluster=cluster, watch=see, stop=stop)
    )


def watch(name: str, plan: SweepPlan, folder: Path, run: Run) -> Outcome:
    """Run, or go on with, a sweep under the eyes of a person.

    Args:
        name: of the sweep.
        plan: what it does.
        folder: where its journal is.
        run: does it, given what to call with snapshots and what will be set by Ctrl-C.
    """
    stop = threading.Event()
    handlers = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with terminal_stream() as stream, SweepDisplay(name, plan, stream) as display:
            return run(display.show, stop)
    except Exception as error:
        if hint := how_to_go_on(folder, plan.config):
            error.add_note(hint)
        raise
    finally:
        for number_, handler in handlers.items():
            signal.signal(number_, handler)


def how_to_go_on(folder: Path, config: SweepConfig) -> str:
    """The line to type that resumes a sweep; empty where there is nothing to resume."""
    saved = SavedSweep.of(folder)
    if not saved.description or saved.finished or (saved.search_ended and not saved.has_result):
        return ""
    return f"continue with: {program()} resume {place_of(folder, config)}"


def place_of(folder: Path, config: SweepConfig) -> str:
    """What finds a sweep from here."""
    return folder.name if config.storage == "sweeps" else str(folder)


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
        ended = SavedSweep.of(outcome.folder).trials_done
        console.print(f"Stopped after {ended} trials. Nothing is running any more.")
        console.print(how_to_go_on(outcome.folder, config) or "Nothing had begun; run it again.")
        return
    for name, task in outcome.tasks.items():
        _print_task(name, task)
    _print_overall(outcome)
    _print_next(outcome, config)
    _print_cost(outcome, config)


def _print_task(name: str, task: TaskOutcome) -> None:
    selection = task.selection
    best, score = selection.winner, metric_name(selection.metric)
    console.print(
        f"{name}: {best.method} {'wins' if len(selection.tied) == 1 else 'is recommended'} with {score}"
        f" {score_words(best)} on {evidence_words(best, selection)}."
    )
    _print_tied(selection)
    _print_behind(selection)
    for one in task.finalists:
        if one.role == "default":
            console.print(f"  {best.method} untuned: {one.score:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]")
    if (accuracy := task.champion.metrics.get("accuracy")) is not None:
        console.print(
            f"  accuracy {accuracy:.3f}; always the commonest label would reach {task.plan.data.majority:.3f}"
        )
    measurements = task.champion.measurements
    console.print(
        f"  it trains {number(measurements['trainable_parameters'])} parameters"
        f" and takes {size(measurements['adapter_bytes'])} on disk"
    )
    for method, reason in {**{e.method: e.note for e in selection.scored if e.note}, **selection.failed}.items():
        console.print(f"  {method}: {reason}")
    if made := task.registered:
        console.print(f"registered: {made.name} version {made.version}, alias {made.alias}")
    else:
        console.print(f"NOT registered: {task.unregistered}")
    for note in task.notes:
        console.print(f"  {note}")


def _print_tied(selection: Selection) -> None:
    tied = [selection.entry(method) for method in selection.tied[1:]]
    if tied:
        named = ", ".join(f"{one.method} {score_words(one)}" for one in tied)
        console.print(f"  tied with it: {named}")
    console.print(f"  why: {selection.reason}")
    console.print(f"  what would change it: {selection.alternative}")


def _print_behind(selection: Selection) -> None:
    """Who is behind for sure, and how small a difference could have been told."""
    gap = [one for one in selection.finalists if not one.tied]
    if gap:
        told = ", ".join(f"{one.method} {one.score:.3f} (by {one.gap:.3f} at least)" for one in gap)
        console.print(f"  clearly behind: {told}")
    if selection.others:
        told = ", ".join(f"{one.method} {one.score:.3f}" for one in selection.others)
        console.print(f"  out on validation already: {told}")
    console.print(
        f"  this split and these seeds could have shown differences of {selection.minimum_detectable_difference:.3f}"
    )


def _print_overall(outcome: Outcome) -> None:
    if len(outcome.tasks) > 1:
        print_overall(overall([task.selection for task in outcome.tasks.values()]))


def _print_next(outcome: Outcome, config: SweepConfig) -> None:
    """What to type now."""
    uri = mask_secrets(config.mlflow.tracking_uri)
    browse = f"{program('mlflow')} ui --backend-store-uri {uri}" if "://" in uri and not uri.startswith("http") else uri
    extra = "" if uri == "sqlite:///mlflow.db" else f" --tracking-uri {uri}"
    place = place_of(outcome.folder, config)
    if (report := outcome.folder / "report.html").exists():
        console.print(f"  report   {report}")
    else:
        console.print(f"  report   {program()} report {place}")
    console.print(f"  browse   {browse}")
    if first := next((task.registered for task in outcome.tasks.values() if task.registered), None):
        console.print(f"  use      {program()} predict {first.reference}{extra} < rows.jsonl")
        console.print(f"  check    {program()} models verify {first.reference}{extra}")
    console.print(f"  ask      {program()} select {place} --max-size 1MB")
    if any(task.registered is None for task in outcome.tasks.values()):
        console.print(f"  register {program()} resume {place}")
    console.print(f"  details  {outcome.folder}")
    if outcome.unexported:
        console.print(f"MLflow has not taken {outcome.unexported} events; they are in {outcome.folder}/journal.jsonl")


def _print_cost(outcome: Outcome, config: SweepConfig) -> None:
    lanes = outcome.lanes.values()
    busy = sum(lane.busy for lane in lanes) / len(lanes) if lanes else 0.0
    stopped = sum(r.state == "pruned" for r in outcome.trials)
    console.print(
        f"{len(outcome.trials)} trials ({stopped} stopped early) in {duration(outcome.wall_seconds)}"
        f" on {len(outcome.lanes)} lanes, {busy:.0%} busy;"
        f" the search took {spent_words(sum(r.lane_seconds for r in outcome.trials), config.budget)}"
    )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """What came out, for machines."""
    return {
        "sweep": outcome.sweep,
        "reason": outcome.reason,
        "tasks": {
            name: {
                "champion": task.registered.reference if task.registered else None,
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
                "selection": task.selection.to_dict(),
                "trials": len(task.records),
                "lane_seconds": sum(record.lane_seconds for record in task.records),
                "wall_seconds": outcome.wall_seconds,
            }
            for name, task in outcome.tasks.items()
        },
        "overall": overall([task.selection for task in outcome.tasks.values()]).to_dict()
        if len(outcome.tasks) > 1
        else None,
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
        "scores": [scored.score for scored in one.scored],
        "tied": one.tied,
        "measurements": one.measurements,
    }
