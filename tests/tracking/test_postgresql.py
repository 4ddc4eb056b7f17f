"""Tracking in a real PostgreSQL database, which asks for a password, stops while events are written, and comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.tracking.browse import show_model
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.mlflow_exporter import MlflowExporter
from orchestrator.tracking.registry import register
from orchestrator.tracking.verify import verify

from ..postgresql import PASSWORD, PostgreSQL, postgresql
from .conftest import MakeBundle, Story, assert_all_arrived

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server's user is another one
        with postgresql(Path(folder) / "server") as server:
            yield server


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_exporter_loses_and_doubles_nothing_while_postgresql_restarts(
    database: PostgreSQL, story: Story, mode: str
) -> None:
    exporter = MlflowExporter(story.path, database.uri, mode, poll=0.05, longest_pause=0.5)
    exporter.start()
    story.sweep()
    story.trial("lora", 0, {25: 0.5, 50: 0.6})
    assert exporter.flush(120), exporter.last_error

    for number in range(1, 6):  # on their way while the server stops
        story.trial("lora", number, {25: 0.1 * number, 50: 0.2 * number})
    database.stop(mode)
    story.trial("ia3", 0, {25: 0.5})
    story.journal.append("close", reason="finished", message="")
    assert not exporter.flush(2)
    assert exporter.pending >= 1
    assert exporter.last_error
    assert PASSWORD not in exporter.last_error

    database.start()
    assert exporter.flush(120), exporter.last_error
    assert_all_arrived(exporter, database.uri, mode)
    assert exporter.close(10)


def test_registry_in_postgresql_registers_and_verifies(
    database: PostgreSQL, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the artifacts of such a database
    made, client = make_bundle(), open_client(database.uri)
    run = client.create_run(client.create_experiment("mail")).info.run_id
    registered = register(made.folder, run_id=run, tracking_uri=database.uri)
    assert registered.reference == "mail@champion"
    assert show_model("mail", database.uri)["run_id"] == run
    found = verify("mail@champion", database.uri)
    assert (found.ok, found.rows) == (True, 30)
