"""``peft-sweep report``: what it writes, prints and refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.common.errors import InputError
from orchestrator.report.ending import report_at_end
from orchestrator.simulation.written_sweep import WrittenSweep

NAME = "airline-20261121-220300"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return WrittenSweep(tmp_path / "sweeps" / NAME, trials=14).write()


def report(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["report", *arguments], catch_exceptions=False)


def test_report_command_prints_page_and_next_step(folder: Path) -> None:
    shown = report(NAME)
    assert shown.exit_code == 0
    assert "airline  lora: macro-F1 0.8" in shown.output
    assert str(folder / "report.html") in shown.output
    assert "not logged   to MLflow: sqlite:///mlflow.db has no run of this sweep" in shown.output
    assert f"select {NAME} --max-size 1MB" in shown.output
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not Path("mlflow.db").exists()


def test_report_json(folder: Path) -> None:
    told = json.loads(report(str(folder), "--out", "page.html", "--no-mlflow", "--json").output)
    assert told["recommended"] == {"airline": "lora"}
    assert told["ended"] == "finished"
    assert Path(told["report"]).stat().st_size == told["bytes"]
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["airline-1"], "there is no sweep of that name"),
        ([NAME, "--out", "."], "is a folder; write report.html"),
        ([NAME, "--out", "nowhere/page.html"], "cannot be written"),
    ],
)
def test_report_refuses_invalid_arguments_in_one_line(folder: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(InputError) as told:
        report(*arguments)
    (line,) = told.value.lines()
    assert words in line


def test_report_needs_no_torch_ray_and_mlflow(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.report.write import write_report;"
        f"write_report(Path({str(folder)!r})); print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_report_at_end_does_not_raise(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write("no event\n")
    report_at_end(folder, tracking_uri=None)
    assert "peft-sweep report writes one" in caplog.text
    assert not (folder / "report.html").exists()
