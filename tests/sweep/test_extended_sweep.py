"""A real sweep is run and then extended, with Ray and MLflow."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking.connection import open_client

from ..small_sweep import COMMAND, NOISE, ends, environment, events, journal_of, mlflow_runs, optuna_states, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, *map(pytest.mark.filterwarnings, NOISE)]


def told(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a command, and return the JSON that it prints."""
    ended = subprocess.run(
        [*COMMAND, *arguments, "--json"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def test_extended_sweep_trains_more_and_registers_what_changed(tmp_path: Path) -> None:
    write_sweep(tmp_path, budget={"trials": 3}, selection={"seeds": 2}, lanes={"max": 1})
    first = told(tmp_path, "run", "sweep.yaml")
    journal = journal_of(tmp_path)
    before = len(events(journal))
    second = told(tmp_path, "extend", first["sweep"], "--trials", "+3")
    written = events(journal)
    assert len(ends(written)) == 6
    assert [event["event"] for event in written[before : before + 2]] == ["resume", "extend"]
    assert set(optuna_states(journal.parent)) == set(ends(written)), "the studies go on"
    selections = [event for event in written if event["event"] == "selection"]
    assert [selection["look"] for selection in selections] == [1, 2]
    earlier, later = ({result["method"] for result in selection["finalists"]} for selection in selections)
    assert earlier <= later
    assert "97.5 % level" in (journal.parent / "report.html").read_text()

    client = open_client(f"sqlite:///{tmp_path / 'mlflow.db'}", None)
    versions = {version.tags["trial_key"]: version for version in client.search_model_versions("name='mail'")}
    champion = versions[second["tasks"]["mail"]["trial"]]
    assert int(champion.version) == second["tasks"]["mail"]["version"]
    if first["tasks"]["mail"]["trial"] == second["tasks"]["mail"]["trial"]:
        assert second["tasks"]["mail"]["version"] == first["tasks"]["mail"]["version"], "nothing changed"
    else:
        assert champion.tags["look"] == "2"
    registered = [event for event in written if event["event"] == "registered"]
    assert len(registered) == 2
    trials = [run for run in mlflow_runs(f"sqlite:///{tmp_path / 'mlflow.db'}") if run.data.tags["kind"] == "trial"]
    assert len(trials) == 6
