"""``peft-sweep run`` and ``peft-sweep demo``: a sweep with its live display, and its outcome."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.cli.output.budget import spent_text
from orchestrator.cli.output.console import console, print_field, program
from orchestrator.cli.output.last_words import last_words
from orchestrator.cli.output.next_commands import config_option, resume_command, resume_hint, sweep_reference
from orchestrator.cli.output.progress import SweepDisplay
from orchestrator.cli.output.select import print_overall, sample_text, score_text
from orchestrator.cli.output.signals import signals_stop
from orchestrator.common.output_capture import terminal_stream
from orchestrator.common.storage import Storage
from orchestrator.common.units import duration, number, size
from orchestrator.common.uris import mask_secrets
from orchestrator.config import SweepConfig
from orchestrator.final.results import Role, TaskOutcome
from orchestrator.journal.folders import JOURNAL, local_folder, new_sweep_name
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.looks import look_text
from orchestrator.selection.overall import overall
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection
from orchestrator.sweep.runner import run_sweep
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Outcome, Watch
from orchestrator.tracking.runs_view import view_page

RunSweep = Callable[[Watch, threading.Event], Outcome]

WHY = {
    "cut": " by the cap on finalists, not by evidence",
    "undecided": ": behind, but more trials may bring them ahead (95 % quantile)",
}
"""What is said of methods that are neither tied nor out."""


def watch_sweep(plan: SweepPlan, cluster: Cluster) -> Outcome:
    """Run a sweep with a live display; Ctrl-C stops it so that it can be resumed."""
    name = new_sweep_name(plan.config.name)
    folder = local_folder(Storage.at(plan.config.storage), name)
    return watch(
        name, plan, folder, lambda show, stop: run_sweep(plan, sweep=name, cluster=cluster, watch=show, stop=stop)
    )


def watch(name: str, plan: SweepPlan, folder: Path, run: RunSweep) -> Outcome:
    """Run or resume a sweep with a live display.

    Args:
        name: name of the sweep.
        plan: plan of the sweep.
        folder: folder of its journal.
        run: function that runs it, with a callback for snapshots and an event that Ctrl-C sets.
    """
    stop = threading.Event()
    resume = resume_command(folder, plan.config)
    try:
        with (
            terminal_stream() as stream,
            last_words(folder / JOURNAL, resume, stream),
            SweepDisplay(name, plan, stream) as display,
        ):

            def end() -> None:
                display.restore_terminal()
                stream.write(f"{resume_hint(folder, plan.config) or 'The sweep ended at once.'}\n")

            with signals_stop(stop, end):
                return run(display.show, stop)
    except Exception as error:
        if hint := resume_hint(folder, plan.config):
            error.add_note(hint)
        raise


def print_outcome(outcome: Outcome, config: SweepConfig) -> None:
    """Print the outcome of a sweep, and the next commands."""
    if outcome.reason == "interrupted" and not outcome.tasks:
        trials = SavedSweep.of(outcome.folder).trials_done
        console.print(f"Stopped after {trials} trials; all lanes have ended.")
        console.print(resume_hint(outcome.folder, config) or "The search had not started; run the sweep again.")
        return
    for name, task in outcome.tasks.items():
        _print_task(name, task)
    _print_overall(outcome)
    _print_next(outcome, config)
    _print_cost(outcome, config)


def _print_task(name: str, task: TaskOutcome) -> None:
    selection, champion = task.selection, task.champion
    verb = "wins" if len(selection.named) == 1 else "is recommended"
    score = f"{selection.metric.label} {score_text(champion)} ({sample_text(champion, selection)})"
    if selection.no_better:
        console.print(f"{name}  {selection.no_better}")
        print_field("closest", f"{champion.method}: {score}")
        print_field("lead", selection.over_baseline(champion))
    else:
        console.print(f"{name}  {champion.method} {verb}: {score}")
    _print_selection(selection)
    _print_champion(task)
    notes = {result.method: result.note for result in selection.scored if result.note}
    for method, note in {**notes, **selection.failed}.items():
        print_field("failed", f"{method}: {note}")
    if version := task.registered:
        alias = (
            f"alias {version.alias}" if version.alias else "without an alias: not shown to be better than the baseline"
        )
        print_field("registered", f"{version.name} version {version.version}, {alias}")
    else:
        print_field("registered", f"NO: {task.unregistered}")
    for note in task.notes:
        print_field("note", note)


def _print_selection(selection: Selection) -> None:
    print_field("reason", selection.reason)
    print_field("alternative", selection.alternative)
    if selection.probability:
        print_field("probability", selection.probability_text)
    if tied := [selection.result(method) for method in selection.tied[1:]]:
        print_field("tied", ", ".join(f"{result.method} {score_text(result)}" for result in tied))
    if distant := [result for result in selection.finalists if result.gap is not None and not result.undecided]:
        worse = selection.metric.worse
        gaps = (f"{result.method} {result.mean_score:.3f} (at least {result.gap:.3f} {worse})" for result in distant)
        print_field(worse, ", ".join(gaps))
    for name, results in (
        ("undecided", [result for result in selection.scored if result.undecided]),
        ("eliminated", [result for result in selection.others if not result.cut and not result.undecided]),
        ("cut", [result for result in selection.others if result.cut]),
    ):
        scores = ", ".join(f"{result.method} {result.validation:.3f}" for result in results)
        if scores:
            print_field(name, f"{scores} (validation){WHY.get(name, '')}")
    print_field("resolution", selection.resolution)
    if again := look_text(selection.look):
        print_field("test rows", again)
    if selection.baselines:
        scores = "; ".join(f"{baseline.text} {baseline.name}" for baseline in selection.baselines)
        print_field("baseline", f"{selection.metric.label} {scores}")
    if collapsed := [f"{result.method}: {result.collapse}" for result in selection.scored if result.collapse]:
        print_field("collapsed", "; ".join(collapsed))


def _print_champion(task: TaskOutcome) -> None:
    champion = task.champion
    type_, baseline = task.plan.type, task.plan.data.baseline
    metric = next((metric for metric in type_.metrics if metric.name == type_.baseline_metric), None)
    # The mean over the seeds, as the score in the first line is.
    values = [result.metrics[metric.name] for result in champion.seeds if metric and metric.name in result.metrics]
    if metric and values:
        beside = "" if baseline is None else f" ({type_.baseline_name} {baseline:.3f})"
        print_field(metric.label, f"{statistics.mean(values):.3f}{beside}")
    if untuned := task.untuned:
        print_field("untuned", f"{score_text(untuned)} ({champion.method} with default parameters, 1 seed)")
    parameters, file_size = (champion.measurements[name] for name in ("trainable_parameters", "adapter_bytes"))
    print_field("size", f"{number(parameters)} trainable parameters, {size(file_size)} on disk")


def _print_overall(outcome: Outcome) -> None:
    if len(outcome.tasks) > 1:
        print_overall(overall([task.selection for task in outcome.tasks.values()]))


def _print_next(outcome: Outcome, config: SweepConfig) -> None:
    """Print the next commands."""
    uri = mask_secrets(config.mlflow.tracking_uri)
    page = f"/{view_page(outcome.experiment, outcome.folder.name)}" if outcome.experiment else ""
    is_file = "://" in uri and not uri.startswith("http")
    browse = f"{program('mlflow')} ui --backend-store-uri {uri}" if is_file else f"{uri.rstrip('/')}{page}"
    option = "" if uri == "sqlite:///mlflow.db" else f" --tracking-uri {uri}"
    reference, report = sweep_reference(outcome.folder, config), outcome.folder / "report.html"
    print_field("report", str(report) if report.exists() else f"{program()} report {reference}")
    print_field("browse", browse)
    if is_file and page:
        print_field("", f"http://127.0.0.1:5000{page}")
    if model := next((task.registered for task in outcome.tasks.values() if task.registered), None):
        print_field("predict", f"{program()} predict {model.reference}{option} < rows.jsonl")
        print_field("verify", f"{program()} models verify {model.reference}{option}")
    print_field("select", f"{program()} select {reference} --max-size 1MB")
    if outcome.next_trials:
        count = sum(outcome.next_trials.values())
        shares = ", ".join(f"{_name(study, outcome)} {share}" for study, share in outcome.next_trials.items())
        command = f"{program()} extend {reference} --trials +{count}{config_option(config)}"
        print_field("more trials", f"{command}; they would go to {shares}")
    if any(task.registered is None for task in outcome.tasks.values()):
        print_field("register", f"{program()} resume {reference}{config_option(config)}")
    print_field("folder", str(outcome.folder))
    if outcome.unexported:
        journal, again = outcome.folder / JOURNAL, f"{program()} resume {reference}"
        console.print(f"{outcome.unexported} events were not written to MLflow; {journal} has them")
        console.print(f"If MLflow was away, {again} writes them when it is back")


def _name(study: str, outcome: Outcome) -> str:
    """Return what a study is called: its method, with the task where there are several."""
    return study if len(outcome.tasks) > 1 else study.rpartition("/")[2]


def _print_cost(outcome: Outcome, config: SweepConfig) -> None:
    lanes = outcome.lanes.values()
    busy = sum(lane.busy for lane in lanes) / len(lanes) if lanes else 0.0
    stopped = sum(trial.state == "pruned" for trial in outcome.trials)
    console.print(
        f"{len(outcome.trials)} trials ({stopped} stopped early) in {duration(outcome.wall_seconds)}"
        f" on {len(outcome.lanes)} lanes, {busy:.0%} busy;"
        f" the search took {spent_text(sum(trial.lane_seconds for trial in outcome.trials), config.budget)}"
    )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome of a sweep as JSON values."""
    return {
        "sweep": outcome.sweep,
        "reason": outcome.reason,
        "tasks": {name: _task_json(task, outcome.wall_seconds) for name, task in outcome.tasks.items()},
        "overall": overall([task.selection for task in outcome.tasks.values()]).to_dict()
        if len(outcome.tasks) > 1
        else None,
        "trials": {str(trial.key): trial.state for trial in outcome.trials},
        "next_trials": dict(outcome.next_trials),
        "lanes": {str(lane): status.busy for lane, status in outcome.lanes.items()},
        "folder": str(outcome.folder),
    }


def _task_json(task: TaskOutcome, wall_seconds: float) -> dict[str, Any]:
    champion = task.champion
    return {
        "champion": task.registered.reference if task.registered and task.registered.alias else None,
        "version": task.registered.version if task.registered else None,
        "method": champion.method,
        "trial": champion.trial,
        "params": dict(task.record(champion).params),
        "metric": task.selection.metric.name,
        "mean_score": champion.mean_score,
        "checkpoint_score": champion.checkpoint_score,
        "interval": list(champion.interval),
        "metrics": champion.checkpoint.metrics if champion.checkpoint else {},
        "majority": task.plan.data.majority,
        "baseline": task.plan.data.baseline,
        "state": task.selection.state,
        "results": [_result_json(role, result) for role, result in task.results()],
        "selection": task.selection.to_dict(),
        "trials": len(task.records),
        "lane_seconds": sum(record.lane_seconds for record in task.records),
        "wall_seconds": wall_seconds,
    }


def _result_json(role: Role, result: MethodResult) -> dict[str, Any]:
    names = ("trial", "validation", "mean_score", "checkpoint_score", "interval", "seed_scores", "tied", "measurements")
    return {"role": role, **{name: value for name, value in result.to_dict().items() if name in names}}
