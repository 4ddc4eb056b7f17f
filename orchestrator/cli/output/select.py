"""``peft-sweep select``: choose again among the methods of a finished sweep, and print the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from orchestrator.cli.output.console import console, print_field, program, table
from orchestrator.cli.output.next_commands import recorded_reference
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.journal.events import Event, Journal, ending
from orchestrator.journal.folders import JOURNAL, find_sweep
from orchestrator.journal.validity import blaming_journal
from orchestrator.selection.ask import Reply, ask
from orchestrator.selection.baseline import NO_BETTER
from orchestrator.selection.limits import Limit, Limits
from orchestrator.selection.looks import look_text
from orchestrator.selection.overall import Overall
from orchestrator.selection.recommend import COSTS, measured_text
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Preference, Selection, probability_text, selections


@dataclass(frozen=True)
class Replies:
    """The choices for a sweep's tasks.

    Args:
        sweep: what other commands find the sweep by: its name, or where it is if that is not among the usual sweeps.
        replies: choice for each requested task.
        overall: one method for all tasks, where there are several tasks and no limits.
    """

    sweep: str
    replies: tuple[Reply, ...]
    overall: Overall | None = None


def ask_sweep(sweep: str, task: str, limits: Limits, prefer: str | None, storage: str) -> Replies:
    """Choose again from a sweep's journal.

    Args:
        sweep: name or folder of the sweep.
        task: name of one task; empty for all.
        limits: limits that the answer must satisfy.
        prefer: what decides among the tied; the sweep's own preference if left out.
        storage: storage of the sweeps.

    Raises:
        InputError: if there is no such sweep or task, or the sweep has no selection.
    """
    folder = find_sweep(sweep, storage)
    with blaming_journal(folder / JOURNAL):
        return _replies(folder, task, limits, prefer)


def _replies(folder: Path, task: str, limits: Limits, prefer: str | None) -> Replies:
    sweep, events = folder.name, Journal.read(folder / JOURNAL)
    by_task = selections(events)
    if not by_task:
        raise InputError(sweep, [Problem("", f"the sweep has no result ({_ending(events)}); run it to its end")])
    if task and task not in by_task:
        raise InputError(sweep, [Problem("--task", f"there is no task {task}; {did_you_mean(task, list(by_task))}")])
    description = next(event for event in events if event["event"] == "sweep")
    backbone = float(description["backbone"]["bytes"])
    chosen = [selection for name, selection in by_task.items() if not task or name == task]
    preference = cast("Preference | None", prefer)
    replies = tuple(ask(selection, limits, preference, backbone=backbone, events=events) for selection in chosen)
    last = next((event for event in reversed(events) if event["event"] == "selection_overall"), None)
    shown = last is not None and not task and not limits.values()
    return Replies(
        recorded_reference(folder, description.get("config", {})),
        replies,
        Overall.from_dict(last) if shown and last else None,
    )


def _ending(events: Sequence[Event]) -> str:
    close = ending(events)
    return "it has not ended yet" if close is None else str(close.get("message") or close["reason"])


def replies_json(answer: Replies) -> Any:
    """Return one object, or a list of objects where there are several tasks."""
    replies = [reply.to_dict() for reply in answer.replies]
    return replies[0] if len(replies) == 1 else replies


def print_replies(answer: Replies) -> None:
    """Print the answers as text."""
    for reply in answer.replies:
        _print_reply(answer.sweep, reply)
    if answer.overall:
        print_overall(answer.overall)


def _print_reply(sweep: str, reply: Reply) -> None:
    selection, result = reply.selection, reply.result
    if result is None:
        console.print(f"{selection.task}  {reply.reason}")
    else:
        score = f"{selection.metric.label} {score_text(result)}"
        if reply.state == NO_BETTER and selection.baseline:
            console.print(
                f"{selection.task}  {result.method} was not shown to be better than {selection.baseline.name}"
                f" ({selection.metric.label} {selection.baseline.text})"
            )
            print_field("score", f"{score} ({sample_text(result, selection)})")
            print_field("lead", selection.over_baseline(result))
        else:
            console.print(f"{selection.task}  {result.method}: {score} ({sample_text(result, selection)})")
        if result.collapse:
            print_field("collapsed", result.collapse)
        if reply.limits.values():
            print_field("limits", reply.limits.text())
        if len(reply.tied) > 1:
            print_field("tied", ", ".join(reply.tied[1:]))
        if reply.probability:
            print_field("probability", probability_text(reply.probability))
        print_field("reason", reply.reason)
    print_field("alternative", reply.alternative)
    if again := look_text(selection.look):
        print_field("test rows", again)
    if trial := reply.unscored:
        print_field("unscored", f"{trial.key}, {trial.value:.3f} on validation: within the limits, not scored on test")
    _print_methods(reply)
    if result is not None:
        console.print(f"next: {program()} export {sweep}/{result.trial}\n")


def _print_methods(reply: Reply) -> None:
    rows = table("method", f"mean {reply.selection.metric.label}", "size", "memory", "added latency", "")
    for result in reply.selection.scored:
        costs = [
            measured_text(name, result.measurements, backbone=reply.backbone)
            for name in COSTS
            if name != "training_time"
        ]
        exceeded = reply.exceeded.get(result.method, {})
        verdict = ", ".join(_exceeded_text(name, value) for name, value in exceeded.items())
        rows.add_row(result.method, f"{result.mean_score:.3f}", *costs, verdict or _came_out(reply, result))
    console.print(rows)


def _came_out(reply: Reply, result: MethodResult) -> str:
    """Return how a method within the limits came out, in a word or two."""
    if reply.result is not None and result.method == reply.result.method:
        return "chosen"
    if result.method in reply.tied:
        return "tied"
    if result.undecided:
        return "undecided"
    if result.cut:
        return "cut by the cap"
    return "eliminated" if result.reason else reply.selection.metric.worse


def _exceeded_text(name: Limit, value: float) -> str:
    noun = name.removeprefix("max_").replace("_", " ")
    if name == "mergeable":
        return "does not merge"
    return f"{noun} above the limit" if math.isfinite(value) else f"{noun} not measured"


def print_overall(overall: Overall) -> None:
    """Print the scores by method and task, and the one method for all tasks."""
    tasks = list(overall.per_task)
    rows = table("method", *tasks, "mean loss")
    for method, scores in overall.matrix.items():
        cells = [f"{scores[task]:.3f}{' *' if overall.per_task[task] == method else ''}" if task in scores else "-"
                 for task in tasks]  # fmt: skip
        losses = overall.losses[method]
        rows.add_row(method, *cells, f"{sum(losses.values()) / len(tasks):.2f}" if len(losses) == len(tasks) else "-")
    console.print(rows)
    console.print(f"one method for all tasks: {overall.recommended or 'none'} ({overall.reason})")
    console.print("  * recommended for the task; mean loss: 0 is the best method's score on a task, 1 the worst's")


def score_text(result: MethodResult) -> str:
    """Return a mean score with its interval."""
    return f"{result.mean_score:.3f} [{result.interval[0]:.3f}, {result.interval[1]:.3f}]"


def sample_text(result: MethodResult, selection: Selection) -> str:
    """Return the level of a score's interval, and the number of test rows and seeds behind it."""
    seeds = len(result.seed_scores)
    return f"{selection.level_text} interval, {selection.rows:,} test rows, {seeds} seed{'s' if seeds != 1 else ''}"
