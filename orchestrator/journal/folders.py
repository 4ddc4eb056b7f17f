"""Name, find, create and lock the folders of sweeps on the driver's machine.

This module imports nothing heavy, so that commands that only read a sweep start at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import expand_home, is_uri, mask_secrets
from orchestrator.journal.events import Journal

if TYPE_CHECKING:
    from orchestrator.common.storage import Storage  # imports pyarrow

JOURNAL = "journal.jsonl"
LOCK = "driver.lock"
STOP = "stop"
"""A file that asks a sweep's driver to stop; it may also be in the sweep's folder of an object store."""
LOCK_TIMEOUT_S = 0.5
"""Seconds to wait for a lock that a command holds for a moment, to see whether a driver has it."""


def new_sweep_name(name: str) -> str:
    """Return the name of a sweep that starts now: the configuration's name and the local time.

    Args:
        name: ``name`` in the configuration.
    """
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def local_folder(storage: Storage, sweep: str) -> Path:
    """Return the folder of a sweep's journal: in a local storage, or in ``sweeps`` of the working directory.

    Args:
        storage: the storage of the configuration.
        sweep: the sweep's name.
    """
    return storage.local(sweep) if storage.is_local else Path("sweeps").resolve() / sweep


def find_sweep(reference: str, storage: str = "sweeps") -> Path:
    """Return the folder of a sweep's journal on this machine.

    Args:
        reference: a sweep's name, a unique beginning of one, a path to its folder, or the URI of its folder in an
            object store.
        storage: ``storage`` in the configuration. Journals of sweeps in an object store are in ``sweeps``, where one
            that another machine has written is downloaded to.

    Raises:
        InputError: if there is no such sweep, several names begin with the reference, or the storage cannot be reached.
    """
    storage, reference = split_reference(reference, storage)
    if is_remote(storage):
        return _find_remote(reference, storage)
    root = _local(storage)
    for folder in (expand_home(reference), root / reference):
        if (folder / JOURNAL).is_file():
            return folder.resolve()
    sweeps = sorted(file.parent.name for file in root.glob(f"*/{JOURNAL}"))
    return (root / _match(reference, sweeps, str(root))).resolve()


def split_reference(reference: str, storage: str) -> tuple[str, str]:
    """Return storage and name of a sweep; the URI of a sweep's folder, which holds both, goes before ``storage``."""
    if not is_remote(reference):
        return storage, reference
    uri, question, query = reference.partition("?")
    parent, _, name = uri.rstrip("/").rpartition("/")
    return f"{parent}{question}{query}", name


def is_remote(storage: str) -> bool:
    """Return whether a storage is an object store, so that its sweeps' journals are in ``sweeps``."""
    return is_uri(storage) and not storage.startswith("file://")


def _find_remote(reference: str, storage: str) -> Path:
    """Return the folder of a sweep in an object store, with a copy of its journal if that was written elsewhere."""
    from orchestrator.common.storage import Storage
    from orchestrator.journal.remote import fetch_for_reading, names_in

    root, remote = Path("sweeps").resolve(), Storage.at(storage)
    if (expand_home(reference) / JOURNAL).is_file():
        folder = expand_home(reference).resolve()
    elif (root / reference / JOURNAL).is_file():
        folder = root / reference
    else:
        here = {file.parent.name for file in root.glob(f"*/{JOURNAL}")}
        folder = root / _match(reference, sorted(here | set(names_in(remote))), mask_secrets(storage))
    with suppress(InputError), lock_folder(folder):  # a driver that runs here has all there is
        fetch_for_reading(folder, remote.sub(folder.name))
    return folder


def _match(reference: str, sweeps: list[str], place: str) -> str:
    """Return the one name that is, or begins with, a reference."""
    matches = [name for name in sweeps if reference and name.startswith(reference)]
    if len(matches) == 1 or reference in matches:
        return reference if reference in matches else matches[0]
    if matches:
        message = f"several sweeps have names that begin so: {', '.join(matches[-5:])}"
        raise InputError(reference, [Problem("", message)])
    hint = did_you_mean(reference, sweeps[-5:] if len(sweeps) > 5 else sweeps, "there is")
    raise InputError(reference, [Problem("", f"there is no sweep of that name in {place}; {hint}")])


def make_folder(folder: Path) -> None:
    """Create the folder of a new sweep.

    Raises:
        InputError: if the folder exists already, or cannot be created.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        problem = Problem("", "another sweep of that name started in the same second; run the command again")
        raise InputError(str(folder), [problem]) from error
    except OSError as error:
        raise InputError("storage", [Problem(str(folder), f"cannot be written ({error.strerror})")]) from error


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other drivers out of a sweep's folder.

    The operating system releases the lock when this process ends, however it ends, so that a killed driver leaves no
    stale lock behind.

    Raises:
        InputError: if another driver holds the lock.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        problem = Problem("", f"is still running{_driver(folder)}; Ctrl-C there or peft-sweep stop stops it")
        raise InputError(folder.name, [problem]) from error
    (folder / STOP).unlink(missing_ok=True)  # of a driver that has ended
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Return whether a driver on this machine, or on one that shares the folder, is at work on a sweep."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _driver(folder: Path) -> str:
    """Return the process and host of a sweep's last driver, in brackets; empty before its first event."""
    driver = last_driver(Journal.read(folder / JOURNAL))
    return f" ({driver})" if driver else ""


def last_driver(events: Iterable[Mapping[str, Any]]) -> str:
    """Return the process and host of the last driver in a journal; empty before its first event."""
    starts = [event for event in events if event["event"] in ("sweep", "resume")]
    return f"process {starts[-1]['pid']} on {starts[-1].get('host', 'its node')}" if starts else ""


def _local(storage: str) -> Path:
    return expand_home(storage.removeprefix("file://"))
