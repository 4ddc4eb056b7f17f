"""The copy of a sweep's journal in the storage, from which another machine continues the sweep.

Each driver that works on a sweep writes its journal into a folder of its own, and ``driver.json`` names the folder
that counts. A driver takes a sweep over by one write of that file, and whatever the one before it still uploads counts
no more. A driver looks at the file before each heartbeat, and stops if it names another.
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.uris import mask_secrets, masked_first_line
from orchestrator.journal.segments import read_segments

if TYPE_CHECKING:
    from orchestrator.common.storage import Storage  # imports pyarrow

JOURNAL = "journal.jsonl"
RECORD, INPUTS, OPTUNA_FILE = "driver.json", "inputs", "optuna.log"
_ORIGIN = "origin.json"
DRIVER_TIMEOUT_S = 60.0
"""Seconds without a heartbeat after which a driver counts as dead."""


@dataclass(frozen=True)
class DriverRecord:
    """What ``driver.json`` says: which driver has the sweep.

    Args:
        id: id of the driver's work on the sweep, new each time that a sweep is resumed.
        host: its machine.
        pid: its process there.
        ended: whether it has left the sweep in order, so that nobody needs to wait for a heartbeat.
    """

    id: str
    host: str
    pid: int
    ended: bool = False

    @classmethod
    def new(cls) -> DriverRecord:
        """Return the record of this process."""
        return cls(uuid.uuid4().hex, platform.node(), os.getpid())

    @property
    def folder(self) -> str:
        """Folder of the driver's journal, in the sweep's folder."""
        return f"journal/{self.id}"

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Origin:
    """Where the journal in a folder of this machine comes from.

    Args:
        id: id of the driver that wrote it.
        is_copy: whether it was downloaded. Otherwise that driver worked here, and the journal is at least as long as
            the copy in the storage.
    """

    id: str
    is_copy: bool

    @classmethod
    def of(cls, folder: Path) -> Origin | None:
        """Return the origin of a folder's journal; ``None`` for one that was never in a storage."""
        try:
            return cls(**json.loads((folder / _ORIGIN).read_text()))
        except FileNotFoundError:
            return None

    def write(self, folder: Path) -> None:
        """Record it in a folder."""
        _write(folder / _ORIGIN, json.dumps(asdict(self)).encode())


def read_record(storage: Storage) -> DriverRecord | None:
    """Return which driver has a sweep, ``None`` for a sweep whose journal is not in the storage.

    Args:
        storage: storage of the sweep's folder.

    Raises:
        InputError: if the storage cannot be reached.
    """
    try:
        return DriverRecord(**json.loads(storage.read(RECORD)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreachable(storage, error) from error


def write_record(storage: Storage, record: DriverRecord) -> None:
    """Write which driver has a sweep."""
    storage.write(RECORD, json.dumps(asdict(record)).encode())


def end_record(storage: Storage, record: DriverRecord) -> None:
    """Write that a driver has left its sweep."""
    write_record(storage, replace(record, ended=True))


def fetch_for_reading(folder: Path, storage: Storage) -> None:
    """Bring a copy of a sweep's journal up to date, unless this machine's driver has written it.

    Args:
        folder: folder of the journal on this machine; created if it is missing.
        storage: storage of the sweep's folder.

    Raises:
        InputError: if the storage cannot be reached.
    """
    record = read_record(storage)
    if record and not _is_written_here(folder, record):
        _download(folder, storage, record)
        if storage.exists(OPTUNA_FILE):
            storage.download(OPTUNA_FILE, folder / OPTUNA_FILE)


def fetch_for_resuming(folder: Path, storage: Storage, *, take_over: bool) -> None:
    """Bring a locked folder up to date, with the sweep's inputs, unless this machine's driver was the last.

    Args:
        folder: folder of the journal on this machine.
        storage: storage of the sweep's folder.
        take_over: whether to take the sweep from a driver that may be alive.

    Raises:
        InputError: if the storage cannot be reached, or another driver is alive.
    """
    record = read_record(storage)
    if record is None or _is_written_here(folder, record):  # a driver that worked here is dead: its lock is free
        return
    if not (take_over or record.ended):
        _require_silence(folder.name, storage, record)
    _download(folder, storage, record)
    if storage.exists(INPUTS):
        storage.download(INPUTS, folder / INPUTS)


def names_in(storage: Storage) -> list[str]:
    """Return the names of the sweeps in a storage.

    Raises:
        InputError: if it cannot be reached.
    """
    try:
        return [name for name in storage.folders() if storage.exists(f"{name}/{RECORD}")]
    except (OSError, ValueError) as error:
        raise unreachable(storage, error) from error


def unreachable(storage: Storage, error: Exception) -> InputError:
    """Return the error for a storage that cannot be reached now."""
    message = f"cannot be reached ({masked_first_line(error)})"
    return InputError("storage", [Problem(mask_secrets(storage.root), message)])


def _is_written_here(folder: Path, record: DriverRecord) -> bool:
    return Origin.of(folder) == Origin(record.id, is_copy=False)


def is_alive(folder: Path, storage: Storage) -> bool:
    """Return whether a driver on another machine has a sweep and has sent a heartbeat lately.

    Args:
        folder: folder of the journal on this machine.
        storage: storage of the sweep's folder.

    Raises:
        InputError: if the storage cannot be reached.
    """
    record = read_record(storage)
    if record is None or record.ended or _is_written_here(folder, record):
        return False
    return _silence(storage) < DRIVER_TIMEOUT_S


def _silence(storage: Storage) -> float:
    """Return the seconds since the last heartbeat, by the storage's clock: those of two machines may differ."""
    probe = f"clock-{uuid.uuid4().hex}"
    storage.write(probe, b"now")
    now, last = storage.modified_at(probe), storage.modified_at(RECORD)
    storage.delete(probe)
    return DRIVER_TIMEOUT_S if now is None or last is None else now - last


def _require_silence(sweep: str, storage: Storage, record: DriverRecord) -> None:
    """Check that a driver has sent no heartbeat lately.

    Raises:
        InputError: if it has.
    """
    silent = _silence(storage)
    if silent < DRIVER_TIMEOUT_S:
        message = f"its driver ({record}) was alive {max(0.0, silent):.0f} s ago"
        hint = (
            f"stop it with peft-sweep stop, or wait until it has been silent for {DRIVER_TIMEOUT_S:.0f} s; "
            "--take-over does not wait, for when that machine is gone"
        )
        raise InputError(sweep, [Problem("", message)], hint)


def _download(folder: Path, storage: Storage, record: DriverRecord) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / JOURNAL
    if (origin := Origin.of(folder)) and not origin.is_copy and journal.exists():
        # Written here by a driver that another one has followed since; its last events may be nowhere else.
        os.replace(journal, folder / f"{JOURNAL}.{origin.id[:8]}")
    Origin(record.id, is_copy=True).write(folder)
    _write(journal, read_segments(storage, record.folder))


def _write(path: Path, content: bytes) -> None:
    (incoming := path.with_name(f".incoming-{path.name}")).write_bytes(content)
    os.replace(incoming, path)
