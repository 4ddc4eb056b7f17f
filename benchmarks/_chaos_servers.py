"""The faults of MLflow's server and of its database."""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks._chaos_faults import MLFLOW, Disturbed, Fault, ImpossibleError
from benchmarks._chaos_sweep import ChaosSweep
from tests.mlflow_server import Server
from tests.postgresql import postgresql

DATABASE = "server.db"


@dataclass
class _Restarted(Disturbed):
    """What ends when the fault strikes, and is started again once the sweep has gone on without it."""

    stop: Callable[[], None]
    start: Callable[[], None]
    traces: ClassVar[tuple[str, ...]] = (MLFLOW[0],)

    def strike(self) -> None:
        self.stop()

    def settle(self) -> list[str]:
        self._let_go_on()
        self.start()
        self._wait_for_return(*MLFLOW)
        return []


@dataclass
class _WithServer(Disturbed):
    server: Server
    traces: ClassVar[tuple[str, ...]] = (MLFLOW[0],)


class _StoppedServer(_WithServer):
    """A server that accepts connections and never answers."""

    def strike(self) -> None:
        self._signal(signal.SIGSTOP)

    def settle(self) -> list[str]:
        self._let_go_on()
        self._signal(signal.SIGCONT)
        self._wait_for_return(*MLFLOW)
        return []

    def _signal(self, number: signal.Signals) -> None:
        assert self.server.process is not None
        os.killpg(self.server.process.pid, number)


@dataclass
class _RefusingServer(_WithServer):
    """A server whose database somebody else writes to without an end."""

    writer: sqlite3.Connection | None = field(default=None)

    def strike(self) -> None:
        self.writer = sqlite3.connect(self.server.folder / DATABASE, timeout=60, isolation_level=None)
        self.writer.execute("BEGIN IMMEDIATE")

    def settle(self) -> list[str]:
        self._let_go_on()
        if self.writer:
            self.writer.close()
        self._wait_for_return(*MLFLOW)
        return []


def _killed_server(sweep: ChaosSweep, server: Server) -> Disturbed:
    return _Restarted(sweep, server.kill, server.start)


def _with_server(disturbed: Callable[[ChaosSweep, Server], Disturbed]) -> Fault:
    @contextmanager
    def prepared(folder: Path, /) -> Iterator[Disturbed]:
        folder.mkdir(parents=True)
        server = Server(folder, f"sqlite:///{folder / DATABASE}")
        server.start()
        try:
            with ChaosSweep(folder, tracking_uri=server.uri) as sweep:
                yield disturbed(sweep, server)
        finally:
            server.kill()

    return prepared


@contextmanager
def _restarted_database(folder: Path, /) -> Iterator[Disturbed]:
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-postgresql-") as place:
            Path(place).chmod(0o755)
            with (
                postgresql(Path(place) / "server") as database,
                ChaosSweep(folder, tracking_uri=database.uri) as sweep,
            ):
                yield _Restarted(sweep, database.stop, database.start)
    except pytest.skip.Exception as error:
        raise ImpossibleError(str(error)) from error


SERVER_FAULTS: dict[str, Fault] = {
    "tracking server killed": _with_server(_killed_server),
    "tracking server stopped": _with_server(_StoppedServer),
    "tracking server refuses writes": _with_server(_RefusingServer),
    "PostgreSQL restarted": _restarted_database,
}
