"""What is said of a sweep whose process ends without a word."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ..polling import until

RUN = """
import subprocess, sys, threading
from pathlib import Path
from orchestrator.cli.output.last_words import last_words
from orchestrator.common.own_processes import mark_own_processes

mark_own_processes()
started = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
print(started.pid, flush=True)

with last_words(Path(sys.argv[1]), "continue with: peft-sweep resume mail-1", sys.stderr):
    print("began", flush=True)
    if sys.argv[2] == "is killed":
        threading.Event().wait(600)
started.kill()
started.wait()
"""
SWEEP = '{"time": 1.0, "event": "sweep"}\n'


@pytest.mark.parametrize(
    ("ending", "journal", "says"), [("is killed", SWEEP, True), ("is killed", "", False), ("leaves", SWEEP, None)]
)
def test_killed_sweep_says_how_to_continue(ending: str, journal: str, says: bool | None, tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(journal)
    command = [sys.executable, "-c", RUN, str(tmp_path / "journal.jsonl"), ending]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        started = psutil.Process(int(process.stdout.readline()))
        assert process.stdout.readline() == "began\n"
        if ending == "is killed":
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    first = (
        "peft-sweep: the sweep's process was ended from outside: it was killed, or Ray's own processes have died; "
        "no trial is at fault\n"
    )
    assert errors == {True: f"{first}continue with: peft-sweep resume mail-1\n", False: first, None: ""}[says]
    until(lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE, 10.0)
