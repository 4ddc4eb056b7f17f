"""``peft-sweep logs``: what a sweep's processes printed, as a whole, of one lane, or about one trial."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.journal.events import Event
from orchestrator.journal.folders import JOURNAL, find_sweep
from orchestrator.journal.validity import blaming_journal
from orchestrator.sweep.saved_state import SavedSweep

LOG = "sweep.log"
_PREFIX = re.compile(r"^(?:\x1b\[\d+m)?\(\w+ pid=(?P<pid>\d+)(?:, ip=[\d.]+)?\)(?:\x1b\[0m)? ?(?P<text>.*)$")
"""How Ray marks a line that another process printed."""
_GOES_ON = re.compile(r"^(\s|$|Traceback|During handling|The above exception|[\w.]+(Error|Exception|Interrupt|Exit)\b)")
"""A line that goes on with the message before it: of a traceback."""
_HIDDEN = ("time", "event", "trial", "params", "measurements", "metrics", "answer")
"""Fields of an event that are not shown, or not in their line."""


def print_logs(reference: str, storage: str, *, lane: int | None, trial: str) -> None:
    """Print a sweep's log, or the part that belongs to a lane or a trial.

    Raises:
        InputError: if there is no such sweep, lane or trial, or its log is on another machine.
    """
    if lane is not None and trial:
        raise InputError("--trial", [Problem("", "cannot be combined with --lane; leave one out")])
    folder = find_sweep(reference, storage)
    lines = _lines(folder)
    with blaming_journal(folder / JOURNAL):
        saved = SavedSweep.of(folder)
        if lane is not None:
            lines = _of_lane(lines, _pids(saved, lane))
        elif trial:
            lines = [*map(_event_line, _events(saved, trial)), *_about(lines, trial)]
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _lines(folder: Path) -> Iterable[str]:
    try:
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        message = f"has no {LOG} in {folder}: only its journal was copied here from the machine that ran it"
        raise InputError(folder.name, [Problem("", message)]) from None
    return text.splitlines()


def _pids(saved: SavedSweep, lane: int) -> set[str]:
    """Return the processes that were a lane, by the journal."""
    starts = [event for event in saved.events if event["event"] == "lane"]
    pids = {str(event["pid"]) for event in starts if event["lane"] == lane}
    if not pids:
        lanes = sorted({event["lane"] for event in starts})
        known = f"its lanes are {', '.join(map(str, lanes))}" if lanes else "no lane has started"
        raise InputError(saved.sweep, [Problem(f"--lane {lane}", f"there is no such lane; {known}")])
    return pids


def _of_lane(lines: Iterable[str], pids: set[str]) -> Iterator[str]:
    for line in lines:
        if (match := _PREFIX.match(line)) and match["pid"] in pids:
            yield match["text"]


def _events(saved: SavedSweep, trial: str) -> list[Event]:
    events = [event for event in saved.events if event.get("trial") == trial]
    if not events:
        trials = [event["trial"] for event in saved.events if event["event"] == "trial"]
        hint = did_you_mean(trial, trials[-5:]) if trials else "it has no trial yet"
        raise InputError(saved.sweep, [Problem(f"--trial {trial}", f"there is no such trial in {JOURNAL}; {hint}")])
    return events


def _event_line(event: Event) -> str:
    moment = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S")
    fields = {**event.get("params", {}), **{name: value for name, value in event.items() if name not in _HIDDEN}}
    return f"{moment} {event['event']:<9} {', '.join(f'{name} {_text(value)}' for name, value in fields.items())}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _about(lines: Iterable[str], trial: str) -> Iterator[str]:
    """Yield the messages that name a trial, each with its traceback."""
    names = re.compile(rf"(?<![\w/-]){re.escape(trial)}(?![\w-])")
    open_pid: str | None = None
    for line in lines:
        match = _PREFIX.match(line)
        pid, text = (match["pid"], match["text"]) if match else ("", line)
        if names.search(text):
            open_pid = pid
        elif pid == open_pid and not _GOES_ON.match(text):
            open_pid = None
        elif pid != open_pid:
            continue
        if open_pid is not None:
            yield text
