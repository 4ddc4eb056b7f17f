"""``peft-sweep list``, ``status`` and ``stop``: the states of sweeps, as text and as JSON."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output.console import console, program, table
from orchestrator.cli.output.next_commands import recorded_config_option, recorded_reference
from orchestrator.common.errors import InputError
from orchestrator.common.trial_types import TrialRecord
from orchestrator.common.units import duration
from orchestrator.journal.folders import JOURNAL
from orchestrator.journal.validity import blaming_journal
from orchestrator.report.history import History
from orchestrator.sweep.state import State, SweepState, follow, request_stop, sweep_state

WATCH_INTERVAL_S = 2.0


def state_json(state: SweepState) -> dict[str, Any]:
    """Return a sweep's state as JSON values."""
    history = _history(state)
    return {
        "sweep": state.saved.sweep,
        "state": state.state,
        "reason": state.reason or None,
        "phase": _phase(state) or None,
        "driver": state.driver or None,
        "folder": str(state.saved.folder),
        "began": state.began,
        "last_event": history.end or None,
        "wall_seconds": state.saved.wall_seconds,
        "trials": dict(Counter(trial.state for trial in history.trials)),
        "best": {name: _best_json(history, name) for name in history.tasks},
        "can_resume": state.can_resume,
    }


def print_states(states: list[SweepState], storage: str) -> None:
    """Print a table of sweeps, or how to begin where there is none. One with a damaged journal does not hide others."""
    if not states:
        console.print(f"There is no sweep in {storage}; start one with {program()} run SWEEP.yaml.")
        return
    grid = table("sweep", "state", "began", "trials", "best on validation")
    grid.columns[0].no_wrap = True  # a name is there to be copied
    for state in map(_readable, states):
        history = _history(state)
        best = "; ".join(filter(None, (_best_text(history, task) for task in history.tasks)))
        shown = state.reason if state.state is State.DAMAGED else best
        grid.add_row(state.saved.sweep, state.state, _moment(state.began), str(len(history.trials)), shown or "-")
    console.print(grid)


def states_json(states: list[SweepState]) -> list[dict[str, Any]]:
    """Return the states of sweeps as JSON values."""
    return [state_json(_readable(state)) for state in states]


def _readable(state: SweepState) -> SweepState:
    """Return a state whose events can be shown: without any, and with the reason, where the journal is damaged."""
    try:
        with blaming_journal(state.saved.folder / JOURNAL):
            _history(state)
    except InputError as error:
        return SweepState(saved=replace(state.saved, events=()), state=State.DAMAGED, reason=str(error.lines()[0]))
    return state


def print_state(state: SweepState) -> None:
    """Print a sweep's state, a row per method, and the next command."""
    with blaming_journal(state.saved.folder / JOURNAL):
        view = _view(state)
    console.print(view)


def watch_state(state: SweepState, storage: str) -> None:
    """Show a sweep's state again and again until its driver has ended. Ctrl-C ends the watch alone."""
    with Live(console=console, auto_refresh=False) as live:
        for seen in follow(state, storage, WATCH_INTERVAL_S):
            live.update(_view(seen), refresh=True)


def stop_sweep(name: str, storage: str) -> None:
    """Ask a sweep to stop, wait until it has, and print how to continue."""
    state = sweep_state(name, storage)
    if state.state in (State.RUNNING, State.STOPPING):
        request_stop(state, storage)
        console.print(f"{state.saved.sweep} ({state.driver}) stops after the current step ...")
        *_, state = follow(state, storage)
    print_state(state)


def _view(state: SweepState) -> RenderableType:
    history = _history(state)
    fields = Table.grid(padding=(0, 2))
    counts = Counter(trial.state for trial in history.trials)
    trials = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none yet"
    last = f"{_moment(state.began)}, last event {duration(time.time() - history.end)} ago" if history.end else ""
    for name, value in {
        "phase": _phase(state),
        "driver": state.driver if state.state in (State.RUNNING, State.STOPPING, State.DEAD) else "",
        "reason": state.reason,
        "began": last,
        "took": duration(state.saved.wall_seconds),
        "trials": trials,
    }.items():
        if value:
            fields.add_row(f"  {name}", value)
    head = Text(f"{state.saved.sweep} is {state.state}", style="bold")
    parts: list[RenderableType] = [head, fields]
    if history.trials:
        parts.append(_methods(history))
    parts.append(Text(_next(state)))
    return Group(*parts)


def _methods(history: History) -> Table:
    grid = table("  method", "best on validation", "trials", "ended early", "failed")
    for task in history.tasks:
        metric = history.metric(task)
        by_method: dict[str, list[TrialRecord]] = {}
        for record in history.of_task(task):
            by_method.setdefault(record.key.study, []).append(record)
        rows = [
            (max((metric.sign * value for value in _values(of)), default=-math.inf), of) for of in by_method.values()
        ]
        for best, records in sorted(rows, key=lambda row: -row[0]):
            states = Counter(record.state for record in records)
            score = f"{metric.label} {abs(best):.4f}" if math.isfinite(best) else "-"
            study = records[0].key.study if len(history.tasks) > 1 else records[0].key.method
            grid.add_row(f"  {study}", score, str(len(records)), str(states["pruned"]), str(states["failed"]))
    return grid


def _next(state: SweepState) -> str:
    """Return the command that makes sense next."""
    name = recorded_reference(state.saved.folder, state.saved.description.get("config", {}))
    if state.state is State.RUNNING:
        return f"stop it with: {program()} stop {name}"
    if state.state is State.FINISHED:
        return f"query it with: {program()} select {name}"
    if state.can_resume:
        return f"continue with: {program()} resume {name}{recorded_config_option(state.saved)}"
    return "it has nothing to continue from; run the sweep again" if state.state is not State.STOPPING else ""


def _phase(state: SweepState) -> str:
    return state.phase if state.state is State.RUNNING else ""


def _history(state: SweepState) -> History:
    return History.of(state.saved.sweep, state.saved.events)


def _values(records: list[TrialRecord]) -> list[float]:
    return [record.value for record in records if math.isfinite(record.value)]


def _best(history: History, task: str) -> TrialRecord | None:
    sign = history.metric(task).sign
    scored = [record for record in history.of_task(task) if math.isfinite(record.value)]
    return max(scored, key=lambda record: sign * record.value, default=None)


def _best_text(history: History, task: str) -> str:
    best = _best(history, task)
    return f"{best.key.study}: {history.metric(task).label} {best.value:.4f}" if best else ""


def _best_json(history: History, task: str) -> dict[str, Any] | None:
    best = _best(history, task)
    return {"trial": str(best.key), "metric": history.metric(task).name, "value": best.value} if best else None


def _moment(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "-"
