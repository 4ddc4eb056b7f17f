"""The state of a sweep, seen from outside its driver: from the journal, the lock, and the copy in an object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.storage import Storage
from orchestrator.common.uris import expand_home
from orchestrator.journal.events import ending
from orchestrator.journal.folders import (
    JOURNAL,
    STOP,
    find_sweep,
    is_locked,
    is_remote,
    last_driver,
    local_folder,
    split_reference,
)
from orchestrator.journal.remote import is_alive, names_in
from orchestrator.journal.validity import blaming_journal
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Phase

POLL_INTERVAL_S = 0.5


class State(StrEnum):
    """What a sweep's driver is doing, or how it ended."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    """By the user; it can be resumed."""
    FAILED = "failed"
    """By an error; it can be resumed once the cause is mended."""
    DEAD = "dead"
    """Its driver ended without a word; it can be resumed."""
    FINISHED = "finished"
    DAMAGED = "damaged"
    """Its journal cannot be read."""


RESUMABLE = (State.STOPPED, State.FAILED, State.DEAD)


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """The state of a sweep at one moment.

    Args:
        saved: what its journal records.
        state: what its driver is doing, or how it ended.
        reason: why it failed, or what is missing; may be empty.
    """

    saved: SavedSweep
    state: State
    reason: str = ""

    @property
    def can_resume(self) -> bool:
        """Whether ``resume`` has something to go on with."""
        return self.state in RESUMABLE and self.saved.can_resume

    @property
    def phase(self) -> Phase:
        """What a running sweep is at, as far as its journal says."""
        kinds = {event["event"] for event in self.saved.latest}
        if "selection" in kinds:
            return Phase.REGISTERING
        if "searched" in kinds:
            return Phase.FINAL
        return Phase.SEARCHING if "trial" in kinds else Phase.PREPARING

    @property
    def driver(self) -> str:
        """Process and machine of its last driver; empty before its first event."""
        return last_driver(self.saved.events)

    @property
    def began(self) -> float | None:
        """When its first driver began, in seconds since 1970."""
        description = self.saved.description
        began: float | None = description.get("began", description.get("time"))
        return began


def sweep_state(reference: str, storage: str = "sweeps") -> SweepState:
    """Return the state of a sweep.

    Args:
        reference: the sweep's name, a unique beginning of it, or its folder, which may be a URI.
        storage: storage of the sweeps.

    Raises:
        InputError: if there is no such sweep, the storage cannot be reached, or a line of the journal is wrong.
        SweepError: if a line of the journal is no event at all.
    """
    folder = find_sweep(reference, storage)
    storage, _ = split_reference(reference, storage)
    with blaming_journal(folder / JOURNAL):
        return _state(SavedSweep.of(folder), is_locked(folder) or _is_alive_elsewhere(folder, storage))


def sweep_states(storage: str = "sweeps") -> list[SweepState]:
    """Return the states of all sweeps in a storage, the latest first, those with damaged journals last.

    Raises:
        InputError: if the storage cannot be reached.
    """
    if is_remote(storage):
        names = names_in(Storage.at(storage))
    else:
        root = expand_home(storage.removeprefix("file://"))
        if root.is_file():
            raise InputError("--storage", [Problem(storage, "is a file; write the folder of the sweeps")])
        names = [file.parent.name for file in root.glob(f"*/{JOURNAL}")]
    states = [_readable_state(name, storage) for name in names]
    return sorted(states, key=lambda state: state.began or 0.0, reverse=True)


def _readable_state(name: str, storage: str) -> SweepState:
    try:
        return sweep_state(name, storage)
    except (InputError, SweepError) as error:
        folder = local_folder(Storage.at(storage), name)
        return SweepState(saved=SavedSweep(name, folder), state=State.DAMAGED, reason=str(error))


def latest_sweep(storage: str = "sweeps") -> SweepState:
    """Return the state of the sweep that began last.

    Raises:
        InputError: if there is none, or the storage cannot be reached.
    """
    states = sweep_states(storage)
    if not states:
        raise InputError(storage, [Problem("", "has no sweep; start one with peft-sweep run SWEEP.yaml")])
    return states[0]


def request_stop(state: SweepState, storage: str = "sweeps") -> None:
    """Ask a running sweep's driver, on whatever machine, to stop after the current step.

    Args:
        state: the sweep's state.
        storage: storage of the sweeps.
    """
    folder = state.saved.folder
    if is_locked(folder) or not is_remote(storage):
        (folder / STOP).touch()
    else:
        Storage.at(storage).sub(folder.name).write(STOP, b"")


def follow(state: SweepState, storage: str = "sweeps", interval: float = POLL_INTERVAL_S) -> Iterator[SweepState]:
    """Yield a sweep's state again and again, until its driver has ended; the last one is how it ended.

    Args:
        state: its state, read just now.
        storage: storage of the sweeps.
        interval: seconds between two readings.
    """
    while state.state in (State.RUNNING, State.STOPPING):
        yield state
        time.sleep(interval)
        state = sweep_state(state.saved.sweep, storage)
    yield state


def _state(saved: SavedSweep, is_alive: bool) -> SweepState:
    if is_alive:
        state = State.STOPPING if (saved.folder / STOP).exists() else State.RUNNING
        return SweepState(saved=saved, state=state)
    if saved.finished:
        return SweepState(saved=saved, state=State.FINISHED)
    close: Any = ending(saved.events)
    if close is None:
        return SweepState(saved=saved, state=State.DEAD)
    if close["reason"] == "failed":
        return SweepState(saved=saved, state=State.FAILED, reason=close.get("message") or "")
    missing = [task for task in saved.description.get("tasks", ()) if task not in saved.registered]
    reason = f"not registered: {', '.join(missing)}" if close["reason"] != "interrupted" else ""
    return SweepState(saved=saved, state=State.STOPPED, reason=reason)


def _is_alive_elsewhere(folder: Path, storage: str) -> bool:
    return is_remote(storage) and is_alive(folder, Storage.at(storage).sub(folder.name))
