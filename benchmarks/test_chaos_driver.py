from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.journal.events import Journal

WRITES_TEN_EVENTS = """
import os
import sys
from pathlib import Path
from benchmarks._chaos_driver import SelfKiller
from orchestrator.journal.events import Journal

sys.addaudithook(SelfKiller(sys.argv[1], int(sys.argv[2])))
journal = Journal(Path("journal.jsonl"))
for number in range(10):
    journal.append("end" if number % 2 else "rung", number=number)
    os.mkdir(str(number))
"""


@pytest.mark.parametrize(
    ("moment", "lines", "acted_on", "code"),
    [
        ("before", 4, 4, -signal.SIGKILL),
        ("after", 4, 3, -signal.SIGKILL),
        ("before", 0, 0, -signal.SIGKILL),
        ("after", 10, 9, -signal.SIGKILL),
        ("before", 10, 10, 0),
    ],
)
def test_chaos_driver_kills_itself_at_a_write(
    tmp_path: Path, moment: str, lines: int, acted_on: int, code: int
) -> None:
    command = [sys.executable, "-c", WRITES_TEN_EVENTS, moment, str(lines)]
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=path)
    assert ended.returncode == code, ended.stderr
    assert len(Journal.read(tmp_path / "journal.jsonl")) == lines
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == acted_on
