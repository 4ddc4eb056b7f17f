"""``peft-sweep select``: what a finished sweep answers under limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from orchestrator.cli.output.console import console, program, table
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.units import metric_name, size
from orchestrator.selection.ask import Reply, ask
from orchestrator.selection.limits import Limit, Limits
from orchestrator.selection.overall import Overall
from orchestrator.selection.recommend import COSTS, amount, cost
from orchestrator.selection.selection import Entry, Preference, Selection, selections
from orchestrator.tracking.journal import Journal, ending
from orchestrator.tracking.sweeps import JOURNAL, find_sweep

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Replies:
    """What a sweep answers.

    Args:
        sweep: its name.
        replies: for each task that was asked for.
        overall: one method for all tasks, where there are several and no limits.
    """

    sweep: str
    replies: tuple[Reply, ...]
    overall: Overall | None = None


def asked(sweep: str, task: str, limits: Limits, prefer: str | None, storage: str) -> Replies:
    """Ask a sweep's journal.

    Args:
        sweep: its name or folder.
        task: only this one; empty for all.
        limits: what the answer must keep.
        prefer: what decides among the tied; the sweep's own preference if left out.
        storage: where sweeps are.

    Raises:
        InputError: if there is no such sweep or task, or the sweep came to no selection.
    """
    folder = find_sweep(sweep, storage)
    events = Journal.read(folder / JOURNAL)
    found = selections(events)
    if not found:
        raise InputError(sweep, [Problem("", f"the sweep has named no winner ({_ending(events)}); run it to its end")])
    if task and task not in found:
        raise InputError(sweep, [Problem("--task", f"there is no task {task}; {did_you_mean(task, list(found))}")])
    backbone = float(next(one for one in events if one["event"] == "sweep")["backbone"]["bytes"])
    chosen = [one for name, one in found.items() if not task or name == task]
    wanted = cast("Preference | None", prefer)
    replies = tuple(ask(one, limits, wanted, backbone=backbone, events=events) for one in chosen)
    every = next((one for one in reversed(events) if one["event"] == "selection_overall"), None)
    shown = every is not None and not task and not limits.given()
    return Replies(folder.name, replies, Overall.from_dict(every) if shown and every else None)


def _ending(events: Sequence[Event]) -> str:
    close = ending(events)
    return "it has not ended yet" if close is None else str(close.get("message") or close["reason"])


def replies_json(found: Replies) -> Any:
    """For machines: an object, or a list of them by task where there are several."""
    answers = [reply.to_dict() for reply in found.replies]
    return answers[0] if len(answers) == 1 else answers


def print_replies(found: Replies) -> None:
    """For people."""
    for reply in found.replies:
        _print_reply(found.sweep, reply)
    if found.overall:
        print_overall(found.overall)


def _print_reply(sweep: str, reply: Reply) -> None:
    selection, entry = reply.selection, reply.entry
    asked_for = f" with {reply.limits.words()}" if reply.limits.given() else ""
    if entry is None:
        console.print(f"{selection.task}: {reply.reason}")
        console.print(f"  {reply.alternative}")
    else:
        score = f"{metric_name(selection.metric)} {score_words(entry)}"
        console.print(f"{selection.task}{asked_for}: {entry.method}, {score} on {evidence_words(entry, selection)}.")
        if len(reply.tied) > 1:
            console.print(f"  tied with it: {', '.join(reply.tied[1:])}")
        console.print(f"  why: {reply.reason}")
        console.print(f"  what would change it: {reply.alternative}")
    if reply.unscored:
        best = f"{reply.unscored.trial}, {reply.unscored.validation:.3f} on validation"
        console.print(f"  within the limits too, but never scored on the test split: {best}")
    _print_methods(reply)
    if entry is not None:
        console.print(f"next: {program()} export {sweep}/{entry.trial}\n")


def _print_methods(reply: Reply) -> None:
    shown = table("method", "score", "size", "memory", "latency", "")
    for one in reply.selection.scored:
        costs = [_amount(one, which) for which in COSTS if which != "training_time"]
        broken = reply.broken.get(one.method, {})
        verdict = ", ".join(_broken(name, value) for name, value in broken.items())
        tied = "tied" if one.method in reply.tied else ""
        shown.add_row(one.method, f"{one.score:.3f}", *costs, verdict or tied)
    console.print(shown)


def _broken(name: Limit, value: float) -> str:
    plain = name.removeprefix("max_").replace("_", " ")
    if name == "mergeable":
        return "does not merge"
    return f"{plain} too large" if math.isfinite(value) else f"{plain} not measured"


def _amount(one: Entry, which: Preference) -> str:
    value = cost(one.measurements, which)
    return amount(which, value).replace(" latency", "").replace("no added", "none")


def print_overall(overall: Overall) -> None:
    """The method x task matrix, and one method for all."""
    tasks = list(overall.per_task)
    shown = table("method", *tasks, "mean loss")
    for method, scores in overall.matrix.items():
        cells = [f"{scores[task]:.3f}{' *' if overall.per_task[task] == method else ''}" if task in scores else "-"
                 for task in tasks]  # fmt: skip
        losses = overall.losses[method]
        shown.add_row(method, *cells, f"{sum(losses.values()) / len(tasks):.2f}" if len(losses) == len(tasks) else "-")
    console.print(shown)
    console.print(f"one method for all tasks: {overall.recommended or 'none'}. {overall.reason}")
    console.print("  (* recommended for the task; loss: 0 as good as the best there, 1 as bad as the worst)")


def score_words(entry: Entry) -> str:
    """A score with its scale of uncertainty."""
    return f"{entry.score:.3f} [{entry.interval[0]:.3f}, {entry.interval[1]:.3f}]"


def evidence_words(entry: Entry, selection: Selection) -> str:
    """What a score was measured on."""
    seeds = f" ({len(entry.scores)} seeds)" if len(entry.scores) > 1 else ""
    return f"{selection.rows:,} test rows{seeds}"


def size_words(entry: Entry) -> str:
    """What it takes on disk."""
    return size(entry.measurements["adapter_bytes"]) if "adapter_bytes" in entry.measurements else "unknown size"
