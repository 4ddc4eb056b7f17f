"""The faults: how a sweep is set up for one, what is done to it, and what makes it possible to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from benchmarks._chaos_sweep import ChaosSweep
from tests.mlflow_server import Server
from tests.small_disk import small_disk

DISK_KILOBYTES = 65536


class ImpossibleError(Exception):
    """This machine does not allow the fault."""


@dataclass
class Disturbed:
    """A sweep, and what is done to it; by default nothing needs to be mended."""

    sweep: ChaosSweep

    def strike(self) -> None:
        """Disturb the sweep."""

    def mend(self) -> None:
        """Make it possible to go on."""


class Fault(Protocol):
    """Makes a sweep in a folder, to be disturbed."""

    def __call__(self, folder: Path, /) -> AbstractContextManager[Disturbed]:
        """Return the sweep and what is done to it."""


class _KilledDriver(Disturbed):
    def strike(self) -> None:
        assert self.sweep.process is not None
        self.sweep.process.send_signal(signal.SIGKILL)


class _KilledLane(Disturbed):
    def strike(self) -> None:
        for event in reversed(self.sweep.events()):
            if event["event"] == "lane":
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(event["pid"]).kill()
                return


class _KilledBroker(Disturbed):
    def strike(self) -> None:
        for process in self.sweep.processes("ray::Broker"):
            process.kill()


@dataclass
class _KilledServer(Disturbed):
    server: Server

    def strike(self) -> None:
        self.server.kill()
        self.server.start()

    def mend(self) -> None:
        if self.server.process is None:
            self.server.start()


def _plain(kind: type[Disturbed]) -> Fault:
    @contextmanager
    def prepared(folder: Path, /) -> Iterator[Disturbed]:
        with ChaosSweep(folder) as sweep:
            yield kind(sweep)

    return prepared


@contextmanager
def _killed_server(folder: Path, /) -> Iterator[Disturbed]:
    folder.mkdir(parents=True)
    server = Server(folder, f"sqlite:///{folder / 'server.db'}")
    server.start()
    try:
        with ChaosSweep(folder, tracking_uri=server.uri) as sweep:
            yield _KilledServer(sweep, server)
    finally:
        server.kill()


@contextmanager
def _full_disk(folder: Path, /) -> Iterator[Disturbed]:
    folder.mkdir(parents=True)
    try:
        with small_disk(folder / "disk", DISK_KILOBYTES) as disk, ChaosSweep(folder, disk.folder / "sweeps") as sweep:

            class FullDisk(Disturbed):
                def strike(self) -> None:
                    disk.fill()

                def mend(self) -> None:
                    (disk.folder / "filler").unlink()

            yield FullDisk(sweep)
    except pytest.skip.Exception as error:
        raise ImpossibleError(str(error)) from error


FAULTS: dict[str, Fault] = {
    "driver killed": _plain(_KilledDriver),
    "lane killed": _plain(_KilledLane),
    "broker killed": _plain(_KilledBroker),
    "tracking server killed": _killed_server,
    "disk full": _full_disk,
}
