"""A sweep's folder on the driver's machine, and the lock that keeps a second driver out of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.storage import Storage
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.sweeps import JOURNAL

LOCK = "driver.lock"


def new_sweep_name(name: str) -> str:
    """A sweep's name: the configuration's, and when it began."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def local_folder(storage: Storage, sweep: str) -> Path:
    """Where the driver keeps a sweep's journal: in the storage, or beside it where that is an object store."""
    return storage.local(sweep) if storage.is_local else Path("sweeps").resolve() / sweep


def make_folder(folder: Path) -> None:
    """Make the folder of a sweep that begins.

    Raises:
        InputError: if another took the name, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        problem = Problem("", "a sweep of that name began in this very second; run the command again")
        raise InputError(str(folder), [problem]) from error
    except OSError as error:
        raise InputError("storage", [Problem(str(folder), f"cannot be written ({error.strerror})")]) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder. The operating system lets go of it when its driver dies, however that happens.

    Raises:
        InputError: if the sweep is running.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            folder.name, [Problem("", f"is still running{_driver(folder)}; Ctrl-C there stops it")]
        ) from error
    try:
        yield
    finally:
        lock.release()


def _driver(folder: Path) -> str:
    lives = [event for event in Journal.read(folder / JOURNAL) if event["event"] in ("sweep", "resume")]
    return f" (process {lives[-1]['pid']} on {lives[-1].get('host', 'its node')})" if lives else ""
