"""A tracking server or database that a sweep could not use is told before anything is read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.common.errors import InputError
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.tracking_check import newest_revision, require_tracking, revisions


def refusal(uri: str, registry: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        require_tracking(uri, registry, "mail")
    (line,) = caught.value.lines()
    return line


def execute(uri: str, statement: str) -> None:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        database.execute(statement)


def test_tracking_check_makes_no_database(tmp_path: Path) -> None:
    require_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", None, "mail")
    (tmp_path / "empty.db").touch()
    require_tracking(f"sqlite:///{tmp_path / 'empty.db'}", None, "mail")
    assert [file.name for file in tmp_path.iterdir()] == ["empty.db"]


def test_tracking_check_takes_a_database_of_this_mlflow(uri: str) -> None:
    require_tracking(uri, None, "mail")
    open_client(uri).create_experiment("mail")
    require_tracking(uri, uri, "mail")


def test_tracking_check_tells_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" * 200)
    uri = f"sqlite:///{tmp_path / 'rows.csv'}"
    mend = "write sqlite:///mlflow.db, or http://HOST:PORT of a server"
    assert refusal(uri) == f"mlflow.tracking_uri: {uri}: cannot be used (file is not a database); {mend}"


def test_tracking_check_tells_a_database_of_another_mlflow(uri: str) -> None:
    execute(uri, "UPDATE alembic_version SET version_num = 'fffffffffff1'")
    assert "is a database of a newer MLflow; install that MLflow, or write another file" in refusal(uri)
    execute(uri, f"UPDATE alembic_version SET version_num = '{revisions()[newest_revision()]}'")
    assert refusal(uri).endswith(f"is a database of an older MLflow; copy it, then run: mlflow db upgrade {uri}")


def test_tracking_check_tells_a_deleted_experiment(uri: str, tmp_path: Path) -> None:
    client = open_client(uri)
    client.delete_experiment(number := client.create_experiment("mail"))
    assert refusal(uri) == (
        f"mlflow.tracking_uri: {uri}: its experiment 'mail' was deleted; write another mlflow.experiment, or bring it "
        f"back with mlflow experiments restore --experiment-id {number}"
    )


def test_tracking_check_tells_a_registry_by_its_key(uri: str) -> None:
    assert refusal(uri, "http://127.0.0.1:9").startswith("mlflow.registry_uri: http://127.0.0.1:9: cannot be reached (")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "http://127.0.0.1:9",
            "cannot be reached (Connection refused); start the server, or write sqlite:///mlflow.db",
        ),
        ("http://", "names no server; write http://HOST:PORT"),
        ("http://[x", "names no server; write http://HOST:PORT"),
        ("http://host:port", "names no server; write http://HOST:PORT"),
        ("sqlite:///", "names no file; write sqlite:///mlflow.db"),
        ("mlruns", "is not a URI that MLflow supports; write sqlite:///mlflow.db, or http://HOST:PORT of a server"),
        (
            "mysql+nothing://h/x",
            "needs a package that is not installed (Can't load plugin: sqlalchemy.dialects:mysql.nothing)",
        ),
    ],
)
def test_tracking_check_tells_a_uri_that_cannot_be_used(uri: str, words: str) -> None:
    assert refusal(uri) == f"mlflow.tracking_uri: {uri}: {words}"


def test_tracking_check_hides_passwords() -> None:
    for uri in ("http://ada:hunter2@127.0.0.1:9", "postgresql://ada:hunter2@127.0.0.1:9/mlflow"):
        line = refusal(uri)
        assert "hunter2" not in line
        assert "cannot be" in line


@pytest.fixture
def locked_server() -> Iterator[str]:
    """A server that answers as one with authentication does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"You are not authenticated.")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_tracking_check_tells_a_server_that_wants_a_password(locked_server: str) -> None:
    line = refusal(locked_server)
    assert "lets nobody in without the right password (" in line
    assert line.endswith("; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
