"""``list``, ``status``, ``stop`` and ``logs``, as their readers see them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ..small_sweep import COMMAND

NOW = time.time()
EVENTS: list[dict[str, Any]] = [
    {
        "event": "sweep",
        "sweep": "mail-1",
        "pid": 12,
        "host": "here",
        "began": NOW - 100,
        "tasks": {"mail": {"metric": "macro_f1", "higher_is_better": True}},
    },
    {"event": "lane", "lane": 0, "pid": 41, "nodes": ["a"], "device": "cpu", "gpu": {}},
    {"event": "lane", "lane": 1, "pid": 42, "nodes": ["a"], "device": "cpu", "gpu": {}},
    {"event": "trial", "trial": "mail/lora/0", "params": {"rank": 8, "learning_rate": 0.001}},
    {"event": "rung", "trial": "mail/lora/0", "step": 4, "value": 0.8125},
    {"event": "end", "trial": "mail/lora/0", "state": "complete"},
    {"event": "trial", "trial": "mail/ia3/0", "params": {"rank": 8}},
    {"event": "end", "trial": "mail/ia3/0", "state": "failed", "reason": "diverged at step 2"},
    {"event": "close", "reason": "interrupted"},
]
LOG = """\
\x1b[36m(RayTrainWorker pid=41)\x1b[0m lane zero says so
\x1b[36m(RayTrainWorker pid=42, ip=10.0.0.3)\x1b[0m trial mail/ia3/0 failed at step 2:
\x1b[36m(RayTrainWorker pid=41)\x1b[0m trial mail/ia3/01 is another one
\x1b[36m(RayTrainWorker pid=42, ip=10.0.0.3)\x1b[0m Traceback (most recent call last):
\x1b[36m(RayTrainWorker pid=42, ip=10.0.0.3)\x1b[0m   File "step.py", line 3, in step
\x1b[36m(RayTrainWorker pid=42, ip=10.0.0.3)\x1b[0m ValueError: the loss is nan
\x1b[36m(RayTrainWorker pid=42, ip=10.0.0.3)\x1b[0m lane one goes on
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with one sweep that was stopped."""
    sweep = tmp_path / "sweeps" / "mail-1"
    sweep.mkdir(parents=True)
    lines = [json.dumps({"time": NOW - 90 + second, **event}) for second, event in enumerate(EVENTS)]
    (sweep / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (sweep / "sweep.log").write_text(LOG)
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run a command, and return what it prints."""
    ended = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


def test_status_shows_state_methods_and_the_next_command(folder: Path) -> None:
    lines = [" ".join(line.split()) for line in run(folder, "status").splitlines()]
    assert lines[0] == "mail-1 is stopped"
    assert "trials 1 complete, 1 failed" in lines
    table = lines[lines.index("method best on validation trials ended early failed") + 1 :]
    assert table[:2] == ["lora macro-F1 0.8125 1 0 0", "ia3 - 1 0 1"]
    assert table[2].startswith("continue with: ")
    assert table[2].endswith("peft-sweep resume mail-1")


def test_status_names_a_sweep_elsewhere_by_its_folder(folder: Path) -> None:
    (elsewhere := folder / "old place").mkdir()
    (folder / "sweeps" / "mail-1").rename(elsewhere / "mail-1")
    (folder / "sweeps").rmdir()
    for arguments in (["status", "old place/mail-1"], ["status", "--storage", "old place"]):
        assert run(folder, *arguments).splitlines()[-1].endswith("peft-sweep resume 'old place/mail-1'")


def test_status_says_that_passwords_are_not_recorded(folder: Path) -> None:
    journal = folder / "sweeps" / "mail-1" / "journal.jsonl"
    first, *others = map(json.loads, journal.read_text().splitlines())
    first["config"] = {"mlflow": {"tracking_uri": "postgresql://***@host/db"}}
    journal.write_text("".join(f"{json.dumps(event)}\n" for event in (first, *others)))
    assert run(folder, "status").splitlines()[-1].endswith("peft-sweep resume mail-1 --config SWEEP.yaml")


def test_status_as_json_has_state_and_best_trial(folder: Path) -> None:
    status = json.loads(run(folder, "status", "mail", "--json"))
    assert (status["state"], status["can_resume"], status["driver"]) == ("stopped", True, "process 12 on here")
    assert status["trials"] == {"complete": 1, "failed": 1}
    assert status["best"] == {"mail": {"trial": "mail/lora/0", "metric": "macro_f1", "value": 0.8125}}


def test_list_has_a_row_per_sweep(folder: Path) -> None:
    head, row = (line.split() for line in run(folder, "list").splitlines())
    assert head[:3] == ["sweep", "state", "began"]
    assert (row[0], row[1], row[4:]) == ("mail-1", "stopped", ["2", "mail/lora:", "macro-F1", "0.8125"])
    assert run(folder, "list", "--storage", "nowhere").startswith("There is no sweep in nowhere; start one with ")


@pytest.mark.parametrize("line", ['{"event": ', '{"event": "trial", "time": 1.0, "trial": "lora"}'])
def test_list_shows_a_damaged_sweep_beside_others(folder: Path, line: str) -> None:
    (sweep := folder / "sweeps" / "mail-2").mkdir()
    (sweep / "journal.jsonl").write_text(f"{line}\n")
    states = json.loads(run(folder, "list", "--json"))
    assert [(state["sweep"], state["state"]) for state in states] == [("mail-1", "stopped"), ("mail-2", "damaged")]
    assert f"{sweep / 'journal.jsonl'}: line 1" in states[1]["reason"]


def test_stop_of_a_stopped_sweep_says_so(folder: Path) -> None:
    assert run(folder, "stop", "mail-1").splitlines()[0] == "mail-1 is stopped"
    assert not (folder / "sweeps" / "mail-1" / "stop").exists()


def test_watch_ends_with_the_sweep(folder: Path) -> None:
    assert "mail-1 is stopped" in run(folder, "status", "--watch")


def test_logs_of_a_lane_are_its_processes_lines(folder: Path) -> None:
    assert run(folder, "logs", "mail-1", "--lane", "0").splitlines() == [
        "lane zero says so",
        "trial mail/ia3/01 is another one",
    ]
    assert run(folder, "logs", "mail-1", "--lane", "7", code=2) == (
        "mail-1: --lane 7: there is no such lane; its lanes are 0, 1\n"
    )


def test_logs_of_a_trial_have_its_events_and_its_traceback(folder: Path) -> None:
    begun, ended, *lines = run(folder, "logs", "mail-1", "--trial", "mail/ia3/0").splitlines()
    assert begun.split()[1:] == ["trial", "rank", "8"]
    assert ended.split()[1:] == ["end", "state", "failed,", "reason", "diverged", "at", "step", "2"]
    assert lines == [
        "trial mail/ia3/0 failed at step 2:",
        "Traceback (most recent call last):",
        '  File "step.py", line 3, in step',
        "ValueError: the loss is nan",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "other"], "there is no sweep of that name"),
        (["stop", "other"], "there is no sweep of that name"),
        (["status", "--watch", "--json"], "leave one out"),
        (["logs", "mail-1", "--lane", "0", "--trial", "mail/lora/0"], "leave one out"),
        (["logs", "mail-1", "--trial", "mail/lora/9"], "there is no such trial"),
    ],
)
def test_status_commands_refuse_in_one_line(folder: Path, arguments: list[str], words: str) -> None:
    (line,) = run(folder, *arguments, code=2).splitlines()
    assert words in line


def test_logs_refuse_a_sweep_whose_log_is_elsewhere(folder: Path) -> None:
    (folder / "sweeps" / "mail-1" / "sweep.log").unlink()
    assert "only its journal was copied here" in run(folder, "logs", "mail-1", code=2)
