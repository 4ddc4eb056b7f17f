"""A real MLflow server that goes away while the mirror writes, and comes back."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.tracking.browse import show_model
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.mlflow_exporter import MlflowExporter
from orchestrator.tracking.registry import register
from orchestrator.tracking.verify import verify

from ..mlflow_server import Server
from .conftest import MakeBundle, Story, assert_all_arrived

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    server = Server(folder, f"sqlite:///{folder / 'mlflow.db'}")
    server.start()
    yield server
    server.kill()


def test_exporter_loses_and_doubles_nothing_while_a_server_is_away(server: Server, story: Story) -> None:
    exporter = MlflowExporter(story.path, server.uri, "airline", poll=0.05, longest_pause=0.5)
    exporter.start()
    story.sweep()
    story.trial("lora", 0, {25: 0.5, 50: 0.6})
    assert exporter.flush(60), exporter.last_error

    # These are on their way while the server dies.
    for number in range(1, 6):
        story.trial("lora", number, {25: 0.1 * number, 50: 0.2 * number})
    server.kill()
    story.trial("ia3", 0, {25: 0.5})
    story.journal.append("close", reason="finished", message="")
    assert not exporter.flush(2)
    assert exporter.pending >= 4
    assert exporter.last_error

    server.start()
    assert exporter.flush(60), exporter.last_error
    assert_all_arrived(exporter, server.uri, "airline")
    assert exporter.close(10)


def test_registry_verifies_a_model_from_a_server(server: Server, make_bundle: MakeBundle) -> None:
    made, client = make_bundle(), open_client(server.uri)
    run = client.create_run(client.create_experiment("mail")).info.run_id
    registered = register(made.folder, run_id=run, tracking_uri=server.uri)
    assert registered.reference == "mail@champion"
    assert show_model("mail", server.uri)["run_id"] == run
    found = verify("mail@champion", server.uri)
    assert (found.ok, found.rows) == (True, 30)
