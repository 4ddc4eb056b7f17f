"""No terminal, and no lack of one, ends a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.common.errors import InputError
from orchestrator.lanes.cluster import Cluster

ROOT = Path(__file__).parents[2]
PROGRAM = r"""
import sys, typer
from orchestrator.cli.app import app, main
from orchestrator.cli.output.console import console
from orchestrator.common.output_capture import output_to, terminal_stream
from rich.console import Console
from pathlib import Path

@app.command()
def show(log: Path) -> None:
    console.print("mail · caf\u00e9 \u2501\u2501")
    typer.echo("\ud83d half a character", err=True)
    stream = terminal_stream()
    with output_to(log):
        print("in the log \u00b7")
        Console(file=stream).print("live \u00b7")
        stream.flush()
    print("end")

main()
"""
ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def show(tmp_path: Path, redirected: str, **variables: str) -> tuple[int, str]:
    """Run the program in a shell that redirects its streams; return its code and what it printed."""
    (tmp_path / "show.py").write_text(PROGRAM, encoding="utf-8")
    command = f"{sys.executable} show.py show sweep.log {redirected}"
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "TMPDIR": "/tmp", **variables}
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False)
    return ended.returncode, (ended.stdout + ended.stderr).decode()


def test_terminal_of_ascii_shows_question_marks(tmp_path: Path) -> None:
    code, printed = show(tmp_path, "", **ASCII)
    assert (code, "mail ? caf? ??" in printed, "live ?" in printed) == (0, True, True), printed
    assert (tmp_path / "sweep.log").read_text(encoding="utf-8") == "in the log \u00b7\n"


@pytest.mark.parametrize("redirected", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_nothing_and_write_into_no_file(tmp_path: Path, redirected: str) -> None:
    code, printed = show(tmp_path, redirected, PYTHONIOENCODING="utf-8")
    assert (code, "Traceback" in printed) == (0, False), printed
    assert (tmp_path / "sweep.log").read_text(encoding="utf-8") == "in the log \u00b7\n"


def test_long_folder_of_temporary_files_is_told_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/" + 45 * "x")
    with pytest.raises(InputError) as caught, Cluster():
        pass
    assert caught.value.lines() == [
        f"TMPDIR: /{45 * 'x'}: has 46 bytes, and Ray's sockets need a path of 45 at most; set TMPDIR to a short path, "
        "for instance /tmp"
    ]
