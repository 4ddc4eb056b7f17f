"""The state of a sweep, seen from outside its driver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.status import status
from orchestrator.common.errors import InputError
from orchestrator.journal.folders import JOURNAL, STOP, lock_folder
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.state import State, latest_sweep, request_stop, sweep_state, sweep_states
from orchestrator.sweep.status import Phase

SWEEP = {"event": "sweep", "sweep": "mail-1", "pid": 12, "host": "here", "tasks": {"mail": {}}, "began": 100.0}
TRIAL = {"event": "trial", "trial": "mail/lora/0", "params": {}}
RUNG = {"event": "rung", "trial": "mail/lora/0", "step": 4, "value": 0.5}
SEARCHED = {"event": "searched", "reason": "budget"}
REGISTERED = {"event": "registered", "task": "mail", "name": "mail", "version": 1}
HOLD_THE_LOCK = """
import sys
from pathlib import Path
from orchestrator.journal.folders import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def close(reason: str, message: str = "") -> dict[str, Any]:
    return {"event": "close", "reason": reason, "message": message}


def written(root: Path, *events: dict[str, Any], name: str = "mail-1") -> Path:
    """Write a sweep's journal, and return its folder."""
    (folder := root / name).mkdir(parents=True)
    lines = [json.dumps({"time": 100.0 + second, **event}) for second, event in enumerate(events)]
    (folder / JOURNAL).write_text("".join(f"{line}\n" for line in lines))
    return folder


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold a sweep's lock in another process, as its driver does."""
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "locked\n"
        yield
        process.stdin.close()


@pytest.mark.parametrize(
    ("events", "state", "reason", "can_resume"),
    [
        ([SWEEP, TRIAL], State.DEAD, "", True),
        ([], State.DEAD, "", False),
        ([SWEEP, TRIAL, close("interrupted")], State.STOPPED, "", True),
        ([SWEEP, TRIAL, close("failed", "no lane")], State.FAILED, "no lane", True),
        ([SWEEP, TRIAL, SEARCHED, close("failed", "no result")], State.FAILED, "no result", False),
        ([SWEEP, TRIAL, RUNG, SEARCHED, close("budget")], State.STOPPED, "not registered: mail", True),
        ([SWEEP, TRIAL, RUNG, SEARCHED, REGISTERED, close("budget")], State.FINISHED, "", False),
        ([SWEEP, TRIAL, close("interrupted"), {**SWEEP, "event": "resume"}], State.DEAD, "", True),
    ],
)
def test_state_of_an_ended_driver_follows_the_journal(
    tmp_path: Path, events: list[dict[str, Any]], state: State, reason: str, can_resume: bool
) -> None:
    written(tmp_path, *events)
    seen = sweep_state("mail-1", str(tmp_path))
    assert (seen.state, seen.reason, seen.can_resume) == (state, reason, can_resume)


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([SWEEP], Phase.PREPARING),
        ([SWEEP, TRIAL], Phase.SEARCHING),
        ([SWEEP, TRIAL, RUNG, SEARCHED], Phase.FINAL),
        ([SWEEP, TRIAL, RUNG, SEARCHED, {"event": "selection", "task": "mail"}], Phase.REGISTERING),
    ],
)
def test_state_of_a_running_sweep_has_its_phase(tmp_path: Path, events: list[dict[str, Any]], phase: Phase) -> None:
    with running(written(tmp_path, *events)):
        state = sweep_state("mail-1", str(tmp_path))
    assert (state.state, state.phase, state.driver) == (State.RUNNING, phase, "process 12 on here")
    assert sweep_state("mail-1", str(tmp_path)).state is State.DEAD


def test_stop_request_lasts_until_the_next_driver(tmp_path: Path) -> None:
    folder = written(tmp_path, SWEEP, TRIAL)
    with running(folder):
        request_stop(sweep_state("mail-1", str(tmp_path)), str(tmp_path))
        assert sweep_state("mail-1", str(tmp_path)).state is State.STOPPING
    assert sweep_state("mail-1", str(tmp_path)).state is State.DEAD
    with lock_folder(folder):
        assert not (folder / STOP).exists()


def test_states_come_the_latest_first(tmp_path: Path) -> None:
    written(tmp_path, {**SWEEP, "began": 50.0}, name="mail-1")
    written(tmp_path, {**SWEEP, "began": 70.0}, name="mail-2")
    (tmp_path / "notes").mkdir()
    assert [state.saved.sweep for state in sweep_states(str(tmp_path))] == ["mail-2", "mail-1"]
    assert latest_sweep(str(tmp_path)).saved.sweep == "mail-2"


def test_status_reads_the_latest_sweeps_journal_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: written(tmp_path, {**SWEEP, "sweep": name}, name=name) for name in ("mail-1", "mail-2")}
    read: list[Path] = []
    of = SavedSweep.of
    monkeypatch.setattr(SavedSweep, "of", lambda folder: read.append(folder) or of(folder))
    status(storage=str(tmp_path))
    assert sorted(read) == sorted(folders.values())


def test_latest_sweep_of_an_empty_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="peft-sweep run"):
        latest_sweep(str(tmp_path))
