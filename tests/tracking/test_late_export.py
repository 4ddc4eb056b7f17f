"""A finished sweep whose driver ended before MLflow had its last events: resume writes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.journal.events import Journal
from orchestrator.tracking.mlflow_exporter import MlflowExporter

from ..small_plan import small_plan
from ..small_sweep import mlflow_runs
from ..sweep.test_resume import NAME, write_journal

TRIAL = "mail/lora/0"
EVENTS = (
    {"event": "trial", "trial": TRIAL, "params": {"rank": 8}, "seed": 7},
    {"event": "rung", "trial": TRIAL, "step": 20, "value": 0.5, "lane_seconds": 1.0},
    {"event": "end", "trial": TRIAL, "state": "complete", "reason": "", "lane_seconds": 1.0},
    {"event": "registered", "task": "mail", "name": "mail", "version": 1, "aliases": ["champion"]},
)


@pytest.fixture
def sweep(tmp_path: Path, uri: str) -> Path:
    """A sweep whose driver was killed after it had written the journal's end, and before MLflow knew of that."""
    plan = small_plan(["lora"], storage=str(tmp_path / "sweeps"), mlflow={"tracking_uri": uri})
    write_journal(tmp_path, plan, *EVENTS)
    folder = tmp_path / "sweeps" / NAME
    exporter = MlflowExporter(folder / "journal.jsonl", uri, "tiny", poll=0.05)
    exporter.start()
    assert exporter.close(60), exporter.last_error
    Journal(folder / "journal.jsonl").append("close", reason="finished")
    return folder


def resume(sweep: Path) -> str:
    result = CliRunner().invoke(cli.app, ["resume", str(sweep)])
    assert result.exit_code == 0, result.output
    assert "there is nothing to resume" in result.output
    return result.output


def states(uri: str) -> dict[str, tuple[str, str]]:
    return {run.data.tags["key"]: (run.info.status, run.data.tags.get("state", "")) for run in mlflow_runs(uri)}


def test_resume_of_finished_sweep_writes_what_mlflow_lacks_once(sweep: Path, uri: str) -> None:
    before = (sweep / "journal.jsonl").read_bytes()
    assert states(uri)["mail"][0] == "RUNNING"
    assert "MLflow lacked the sweep's end, which is written now" in resume(sweep)
    assert states(uri) == {"mail": ("FINISHED", "finished"), TRIAL: ("FINISHED", "complete")}
    assert len(mlflow_runs(uri)) == 2
    assert "MLflow" not in resume(sweep)
    assert (sweep / "journal.jsonl").read_bytes() == before


def test_resume_of_finished_sweep_writes_all_where_mlflow_has_nothing(sweep: Path, uri: str, migrated: Path) -> None:
    shutil.copy(migrated, uri.removeprefix("sqlite:///"))
    assert "which is written now" in resume(sweep)
    assert states(uri) == {"mail": ("FINISHED", "finished"), TRIAL: ("FINISHED", "complete")}


def test_resume_of_finished_sweep_leaves_deleted_runs_alone(sweep: Path, uri: str) -> None:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    assert "MLflow" not in resume(sweep)
    Path(uri.removeprefix("sqlite:///")).unlink()
    assert "MLflow" not in resume(sweep)
    assert not Path(uri.removeprefix("sqlite:///")).exists()


def test_resume_of_finished_sweep_says_that_mlflow_is_away(tmp_path: Path) -> None:
    plan = small_plan(["lora"], storage=str(tmp_path / "sweeps"), mlflow={"tracking_uri": "http://127.0.0.1:9"})
    write_journal(tmp_path, plan, *EVENTS, {"event": "close", "reason": "finished"})
    assert "MLflow cannot be reached: " in resume(tmp_path / "sweeps" / NAME)


def test_resume_of_finished_sweep_asks_for_passwords_of_mlflow(tmp_path: Path) -> None:
    plan = small_plan(["lora"], storage=str(tmp_path / "sweeps"), mlflow={"tracking_uri": "postgresql://me:it@host/d"})
    write_journal(tmp_path, plan, *EVENTS, {"event": "close", "reason": "finished"})
    told = resume(tmp_path / "sweeps" / NAME)
    assert "MLflow was not looked at" in told
    assert "add --config SWEEP.yaml" in told
