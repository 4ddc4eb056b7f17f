"""A real sweep that knows passwords and keys, after which nothing that it has written or shown may hold one of them."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ..mlflow_server import Server
from ..s3_server import BUCKET, S3Server, s3_server
from ..small_sweep import COMMAND, NOISE, environment, write_sweep

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(line) for line in NOISE)]
USER, PASSWORD = "ann", "pw-of-tracking-5e1f"
KEY, STORAGE_SECRET = "KEYOFSTORAGE77", "secret-of-storage-77aa"
SECRET_VARIABLES = {
    "MLFLOW_TRACKING_PASSWORD": "pw-of-environment-90cd",
    "AWS_SECRET_ACCESS_KEY": "secret-of-aws-31be",
    "HF_TOKEN": "hf_token-of-hub-c2d4",
}
SECRETS = [PASSWORD, KEY, STORAGE_SECRET, *SECRET_VARIABLES.values()]
LOGINS = [f"{USER}:{PASSWORD}", f"{USER}:{SECRET_VARIABLES['MLFLOW_TRACKING_PASSWORD']}"]
NEEDLES = [*(word.encode() for word in SECRETS), *(base64.b64encode(login.encode()) for login in LOGINS)]


@dataclass(frozen=True)
class Ended:
    """A sweep that has ended.

    Args:
        code: exit code.
        printed: what it has printed.
        command_lines: command lines of all processes that were seen under it.
    """

    code: int
    printed: str
    command_lines: frozenset[str]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Server]]:
    folder = tmp_path_factory.mktemp("server")
    tracking = Server(folder, f"sqlite:///{folder / 'mlflow.db'}")
    with s3_server() as storage:
        tracking.start()
        try:
            yield storage, tracking
        finally:
            tracking.kill()


def run(folder: Path, temporary: str, *arguments: str) -> Ended:
    """Run a command, and look at the processes under it until it has ended."""
    variables = {**environment(folder), **SECRET_VARIABLES, "MLFLOW_TRACKING_USERNAME": USER, "TMPDIR": temporary}
    seen: set[str] = set()
    with (folder / "printed.txt").open("a") as output:
        process = psutil.Popen([*COMMAND, *arguments], cwd=folder, stdout=output, stderr=output, env=variables)
        while True:
            seen |= command_lines(process)
            try:
                code = process.wait(0.3)
            except psutil.TimeoutExpired:
                continue
            return Ended(code, (folder / "printed.txt").read_text(), frozenset(seen))


def command_lines(process: psutil.Process) -> set[str]:
    lines: set[str] = set()
    try:
        for child in [process, *process.children(recursive=True)]:
            lines.add(" ".join(child.cmdline()))
    except psutil.Error:  # one has ended meanwhile
        pass
    return lines


def holding(folders: list[Path]) -> list[tuple[str, bytes]]:
    """Return the files that hold a secret, each with the secret."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    assert files
    return [(str(file), needle) for file in files for needle in NEEDLES if needle in file.read_bytes()]


def test_sweep_writes_and_shows_no_secret(servers: tuple[S3Server, Server], tmp_path: Path) -> None:
    storage, tracking = servers
    uri = storage.uri().replace("s3://", f"s3://{KEY}:{STORAGE_SECRET}@")
    file = write_sweep(
        tmp_path,
        budget={"trials": 4},
        storage=uri,
        mlflow={"tracking_uri": tracking.uri.replace("://", f"://{USER}:{PASSWORD}@")},
    )
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary:
        ended = run(tmp_path, temporary, "run", "sweep.yaml")
        sweep = next((tmp_path / "sweeps").glob("tiny-*"))
        assert ended.code == 0, (sweep / "sweep.log").read_text() + ended.printed
        assert (sweep / "report.html").is_file()
        assert "***@" in (sweep / "journal.jsonl").read_text()
        assert any(line.startswith("ray::") for line in ended.command_lines)
        assert list(Path(temporary).glob("ray/session_*/logs/*"))
        file.unlink()  # of the user, with the secrets
        assert holding([tmp_path, tracking.folder, Path(temporary)]) == []
    shown = [ended.printed, *ended.command_lines]
    assert [(text, word) for text in shown for word in SECRETS if word in text] == []
    objects = {key: storage.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in storage.objects()}
    assert objects
    assert [(key, needle) for key, content in objects.items() for needle in NEEDLES if needle in content] == []
