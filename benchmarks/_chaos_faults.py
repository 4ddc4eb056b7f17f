"""The faults of processes and disks: how a sweep is set up for one, and what is done to it.

Those of MLflow's server are in ``_chaos_servers.py``.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psutil
import pytest

from benchmarks._chaos_sweep import ChaosSweep
from tests.polling import until
from tests.small_disk import SmallDisk, small_disk

DISK_KILOBYTES = 65536
STOP_LIMIT_S = 30.0
PAUSE_EVENTS = 6
PAUSE_LIMIT_S = 60.0
MLFLOW = "MLflow cannot be reached", "MLflow takes events again"
STORAGE = "cannot be reached, trying", "is reached again"
"""Words of the sweep's log when MLflow or the storage has gone, and when it is back."""


class ImpossibleError(Exception):
    """This machine does not allow the fault."""


@dataclass
class Disturbed:
    """A sweep, and what is done to it."""

    sweep: ChaosSweep
    strikes: ClassVar[int] = 3
    """How often one sweep is disturbed, at most."""
    between: ClassVar[tuple[int, int]] = (2, 12)
    """Fewest and most events of the journal before the first time, and between two."""
    traces: ClassVar[tuple[str, ...]] = ()
    """Words of which the sweep's log or output has more after it was disturbed."""
    hits: int = field(default=0, kw_only=True)
    """Processes that the last strike has killed, or other effects that need no trace."""
    traces_before: int = field(default=0, kw_only=True)
    """Number of the traces before the last strike."""

    def prepare(self, draw: random.Random) -> None:
        """Do what must be done before each process of the sweep starts."""

    def disturb(self, draw: random.Random) -> str:
        """Wait for a moment, and disturb the sweep then; returns when. ``""`` if the sweep had ended before that."""
        events = draw.randint(*self.between)
        self.sweep.wait_for_events(len(self.sweep.events()) + events)
        if self.sweep.has_ended():
            return ""
        self.hits, self.traces_before = 0, self._traces()
        self.strike()
        return f"after {events} more events, {self._last_event()}"

    def strike(self) -> None:
        """Disturb the sweep."""

    def without_effect(self) -> list[str]:
        """Return a problem if nothing shows that the last strike has met the sweep."""
        has_effect = self.hits or self._traces() > self.traces_before
        return [] if has_effect else [f"nothing shows that the sweep was disturbed, {self._last_event()}"]

    def _traces(self) -> int:
        text = self.sweep.log() + self.sweep.output().decode(errors="replace")
        return sum(text.count(words) for words in self.traces)

    def settle(self) -> list[str]:
        """Let the sweep end, or make it possible to go on; returns what should not have happened."""
        return []

    def _last_event(self) -> str:
        events = [event["event"] for event in self.sweep.events()]
        return f"{len(events)} in all, the last one {events[-1]}" if events else "none in all"

    def _kill(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
                self.hits += 1

    def _wait_for_end(self) -> list[str]:
        """Wait until the sweep has finished, or has stopped within the limit."""
        seconds = self.sweep.wait()
        assert self.sweep.process is not None
        stopped = self.sweep.process.returncode != 0
        return [f"it stopped after {seconds:.0f} s"] * (stopped and seconds > STOP_LIMIT_S)

    def _let_go_on(self) -> None:
        """Wait until the strike shows and some more events are written, for which the sweep may need to be mended."""
        events = len(self.sweep.events()) + PAUSE_EVENTS
        with suppress(AssertionError):
            until(
                lambda: (
                    self.sweep.has_ended()
                    or (self._traces() > self.traces_before and len(self.sweep.events()) >= events)
                ),
                PAUSE_LIMIT_S,
            )

    def _wait_for_return(self, away: str, back: str) -> None:
        """Wait until the sweep's log tells of as many returns, before which another strike would show no effect."""
        with suppress(AssertionError):
            until(
                lambda: self.sweep.has_ended() or self.sweep.log().count(back) >= self.sweep.log().count(away),
                PAUSE_LIMIT_S,
            )


class Fault(Protocol):
    """Makes a sweep in a folder, to be disturbed."""

    def __call__(self, folder: Path, /) -> AbstractContextManager[Disturbed]:
        """Return the sweep and what is done to it."""


class _KilledDriver(Disturbed):
    strikes = 5

    def strike(self) -> None:
        assert self.sweep.process is not None
        self.sweep.process.send_signal(signal.SIGKILL)

    def settle(self) -> list[str]:
        problems = self._wait_for_end()
        assert self.sweep.process is not None
        self.hits = self.sweep.process.returncode == -signal.SIGKILL
        return problems


class _SelfKilledDriver(Disturbed):
    """Dies as it writes: see ``_chaos_driver.py``."""

    strikes = 8

    def prepare(self, draw: random.Random) -> None:
        lines = len(self.sweep.events()) + draw.randint(*self.between)
        self.sweep.kill_itself = (draw.choice(["before", "after"]), lines)

    def disturb(self, draw: random.Random) -> str:
        assert self.sweep.process is not None
        assert self.sweep.kill_itself is not None
        self.sweep.wait()
        moment, lines = self.sweep.kill_itself
        has_killed_itself = self.sweep.process.returncode == -signal.SIGKILL
        self.hits = int(has_killed_itself)
        return f"{moment} {lines} lines were written, {self._last_event()}" if has_killed_itself else ""


class _KilledLanes(Disturbed):
    strikes = 2
    between = (8, 14)  # so that the trials of the lane that was killed have ended

    def strike(self) -> None:
        pids = {event["lane"]: event["pid"] for event in self.sweep.events() if event["event"] == "lane"}
        self._kill(process for process in self.sweep.tree() if process.pid in pids.values())


class _KilledBroker(Disturbed):
    def strike(self) -> None:
        self._kill(self.sweep.processes("ray::Broker"))

    def settle(self) -> list[str]:
        return self._wait_for_end()


class _KilledNode(_KilledBroker):
    def strike(self) -> None:
        self._kill(self.sweep.processes("raylet"))


class _KilledStore(_KilledBroker):
    def strike(self) -> None:
        self._kill(self.sweep.processes("gcs_server"))


class _KilledProxy(Disturbed):
    name: ClassVar[str] = "ray::ResourceTrainable"

    def strike(self) -> None:
        with suppress(AssertionError):  # a trial is in the journal before it has a process
            until(lambda: self.sweep.has_ended() or self.sweep.processes(self.name), PAUSE_LIMIT_S)
        self._kill(self.sweep.processes(self.name)[:1])


class _KilledController(Disturbed):
    strikes = 2
    between = _KilledLanes.between

    def strike(self) -> None:
        self._kill(self.sweep.processes("ray::TrainController"))


class _HangingTraining(Disturbed):
    strikes = 1
    work: ClassVar[str] = "training"

    def strike(self) -> None:
        (self.sweep.folder / f"hang in {self.work}").touch()

    def settle(self) -> list[str]:
        self.sweep.wait()
        marker = self.sweep.folder / f"hang in {self.work}"
        self.hits = not marker.exists()  # whatever hangs removes it
        marker.unlink(missing_ok=True)
        seen = "the lane is stuck" in self.sweep.log()
        return ["the log tells of no hang"] * (bool(self.hits) and not seen)


class _HangingScoring(_HangingTraining):
    work = "scoring"


class _HangingFinal(_HangingTraining):
    def disturb(self, draw: random.Random) -> str:
        until(lambda: "searched" in [event["event"] for event in self.sweep.events()] or self.sweep.has_ended(), 600)
        self.hits = 0
        self.strike()
        return "in the final"


def _plain(kind: type[Disturbed], lanes: int = 1) -> Fault:
    @contextmanager
    def prepared(folder: Path, /) -> Iterator[Disturbed]:
        with ChaosSweep(folder, lanes={"min": lanes, "max": lanes, "pack": 2}) as sweep:
            yield kind(sweep)

    return prepared


@dataclass
class _FullDisk(Disturbed):
    disk: SmallDisk
    traces: ClassVar[tuple[str, ...]] = ("No space left on device", "(os error 28)")

    def strike(self) -> None:
        self.disk.fill()

    def settle(self) -> list[str]:
        """Make room where the sweep has stopped, or a lane waits for the storage, or nothing minds."""
        lines = self.sweep.log().count(STORAGE[0])
        with suppress(AssertionError):
            until(lambda: self.sweep.has_ended() or self.sweep.log().count(STORAGE[0]) > lines, PAUSE_LIMIT_S)
        (self.disk.folder / "filler").unlink()
        self._wait_for_return(*STORAGE)
        return []


@dataclass
class _FullDatabase(_FullDisk):
    traces: ClassVar[tuple[str, ...]] = (MLFLOW[0],)

    def settle(self) -> list[str]:
        self._let_go_on()
        (self.disk.folder / "filler").unlink()
        self._wait_for_return(*MLFLOW)
        return []


def _on_small_disk(kind: type[_FullDisk], what: str) -> Fault:
    @contextmanager
    def prepared(folder: Path, /) -> Iterator[Disturbed]:
        folder.mkdir(parents=True)
        try:
            with small_disk(folder / "disk", DISK_KILOBYTES) as disk:
                places: dict[str, dict[str, Any]] = {
                    "folder": {"storage": disk.folder / "sweeps"},
                    "checkpoints": {"storage": f"fsspec+local://{disk.folder / 'sweeps'}"},
                    "database": {"tracking_uri": f"sqlite:///{disk.folder / 'mlflow.db'}"},
                }
                with ChaosSweep(folder, **places[what]) as sweep:
                    yield kind(sweep, disk)
        except pytest.skip.Exception as error:
            raise ImpossibleError(str(error)) from error

    return prepared


FAULTS: dict[str, Fault] = {
    "driver killed": _plain(_KilledDriver),
    "driver killed at a write": _plain(_SelfKilledDriver),
    "lane killed": _plain(_KilledLanes),
    "two lanes killed": _plain(_KilledLanes, lanes=2),
    "broker killed": _plain(_KilledBroker),
    "raylet killed": _plain(_KilledNode),
    "control store killed": _plain(_KilledStore),
    "trial's process killed": _plain(_KilledProxy),
    "controller killed": _plain(_KilledController),
    "disk of the folder full": _on_small_disk(_FullDisk, "folder"),
    "disk of the checkpoints full": _on_small_disk(_FullDisk, "checkpoints"),
    "disk of the database full": _on_small_disk(_FullDatabase, "database"),
    "hang in a step": _plain(_HangingTraining),
    "hang in an evaluation": _plain(_HangingScoring),
    "hang in the final": _plain(_HangingFinal),
}
