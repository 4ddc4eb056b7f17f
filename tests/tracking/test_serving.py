"""MLflow's own server answers requests with a registered champion."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from orchestrator.tracking.bundle import EVALUATION
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.registry import register

from .conftest import MakeBundle
from .small import Made

pytestmark = pytest.mark.slow
START = 180


@pytest.fixture
def made(make_bundle: MakeBundle) -> Made:
    return make_bundle()


@pytest.fixture
def address(made: Made, uri: str, tmp_path: Path) -> Iterator[str]:
    """Of ``mlflow models serve`` with that model; it is ended with all its processes."""
    client = open_client(uri)
    run = client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id
    register(made.folder, run_id=run, tracking_uri=uri)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/mail@champion"]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = tmp_path / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def wait(ping: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(ping, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)


def test_a_champion_is_served(address: str, made: Made) -> None:
    body = json.dumps({"dataframe_records": made.inputs}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.loads(answer.read())["predictions"]
    recorded = parquet.read_table(made.folder / EVALUATION)["probabilities"].to_pylist()
    now = [[row[f"probability_{label}"] for label in made.bundle.labels] for row in found]
    np.testing.assert_allclose(now, recorded, rtol=0, atol=1e-6)
    assert [row["label"] for row in found] == [made.bundle.labels[np.argmax(row)] for row in recorded]

    # What cannot be predicted is refused in one line, without a path of the server.
    for value, problem in ((None, "text is null"), (3.5, "text is number"), (" ", "text is empty")):
        body = json.dumps({"dataframe_records": [{"text": value}]}).encode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"}))
        message = caught.value.read().decode()
        assert caught.value.code == 400
        assert f"row 1: {problem}" in message
        assert ".py" not in message
    body = json.dumps({"inputs": [row["text"] for row in made.inputs]}).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"})) as answer:
        assert json.loads(answer.read())["predictions"] == found
