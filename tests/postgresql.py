"""A PostgreSQL server of one's own, in a folder, which can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

USER, PASSWORD, DATABASE = "mlflow", "s3cret-of-postgres", "mlflow"
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class PostgreSQL:
    """A cluster that asks for a password, on a free port of this machine.

    The server refuses to run as root; it is the system's user ``postgres`` then, whom Debian's package has made.

    Args:
        folder: folder that is made for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-U", USER, f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync", "-D", self._data)
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, DATABASE)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "-D", self._data, "-o", options, "-l", str(self.folder / "server.log"))

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: ``immediate`` as if it had crashed, ``fast`` with the connections closed."""
        self._run("pg_ctl", "stop", "--wait", "-m", mode, "-D", self._data)

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run(
            [*as_user, str(_FOLDERS[0] / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Run a server in a folder; skip the test where PostgreSQL is not installed.

    Args:
        folder: folder that is made. Under root, all folders above it must be open to the server's user.
    """
    if not _FOLDERS:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    server = PostgreSQL(folder)
    try:
        yield server
    finally:
        with suppress(subprocess.CalledProcessError):  # the test has stopped it already
            server.stop()
