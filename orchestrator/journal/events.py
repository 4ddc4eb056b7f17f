"""Write and read the journal of a sweep: all events in order, one JSON object per line.

An event is written here before anything acts on it, so that MLflow, the report and a resumed sweep can be rebuilt from
the journal. Only complete lines count: what a crash left of a line is ignored by readers and cut by the next writer.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.common.errors import SweepError
from orchestrator.common.jsonl import cut_torn_line, finite
from orchestrator.journal.earlier_releases import in_todays_words

Event = Mapping[str, Any]
"""An event as it is read, with its ``event`` (its kind), its ``time`` and the fields of its kind."""

# These events are on disk before work goes on. If the machine dies, others may be lost: they follow from the events
# around them, or their work is done again.
_DURABLE = frozenset(
    {"sweep", "resume", "extend", "end", "searched", "answer", "test", "selection", "registered", "close"}
)


class JournalError(SweepError):
    """The journal could not be written, on a full disk for instance. Nothing that was written before is lost."""


class Journal:
    """Writer of a journal. A journal has one writer and any number of readers.

    Args:
        path: the file; created with its folder. An incomplete last line is cut off.
        clock: function that returns the ``time`` of an event, in seconds since 1970.
        on_durable: function that is called after each event that others must not lose.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, on_durable: Callable[[], None] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        cut_torn_line(path)
        self.path = path
        self.error: JournalError | None = None
        """Why an event could not be written; no event is written after that one."""
        self._clock = clock
        self._on_durable = on_durable
        self._synced = -1
        self._lock = threading.Lock()

    def append(self, event: str, **fields: Any) -> None:
        """Write one event. Safe to call from any thread; readers see the event when this returns.

        Args:
            event: kind of the event.
            fields: JSON values; numbers that are not finite become null.

        Raises:
            JournalError: if this event or an earlier one could not be written.
        """
        with self._lock:
            if self.error:
                raise self.error
            line = json.dumps({"time": self._clock(), "event": event, **finite(fields)}, allow_nan=False)
            try:
                _append(self.path, line.encode() + b"\n", durable=event in _DURABLE)
            except OSError as error:
                # Whoever called may ignore the error and go on. An event that follows a lost one would then describe
                # a sweep that never was.
                self.error = JournalError(
                    f"{self.path} cannot be written: {error.strerror or error}; what it holds is whole"
                )
                raise self.error from error
        if self._on_durable and event in _DURABLE:
            self._on_durable()

    def sync(self) -> int:
        """Let all events so far survive a death of the machine. Returns the journal's size, in bytes."""
        with self._lock, self.path.open("ab") as file:
            size = file.seek(0, os.SEEK_END)
            if size != self._synced:
                os.fsync(file.fileno())
                self._synced = size
        return size

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """Return all events of a journal, in today's words.

        Args:
            path: the journal of any release; a missing file has no events.

        Raises:
            SweepError: if a line is not a JSON object.
        """
        return read_from(path, 0)[0]


def _append(path: Path, line: bytes, *, durable: bool) -> None:
    """Write a whole line at a file's end, or nothing."""
    with path.open("ab", buffering=0) as file:  # a buffer would try to write the rest of the line when it is closed
        end = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:  # a disk that becomes full takes a part
                rest = rest[file.write(rest) or 0 :]
            if durable:
                os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_from(path: Path, offset: int, end: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return the events that were written since the last call, for readers that follow a running sweep.

    Args:
        path: the journal; a missing file has no events.
        offset: position in bytes: 0 at first, then the offset that the last call returned.
        end: position in bytes beyond which nothing is read; the file's end if left out.

    Returns:
        The events of all complete lines, and the offset of the next call.

    Raises:
        SweepError: if a line is not a JSON object.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read() if end is None else file.read(max(0, end - offset))
    content = content[: content.rfind(b"\n") + 1]
    events = []
    for line in content.splitlines(keepends=True):
        events.append(_parse(line, path, offset))
        offset += len(line)
    return events, offset


def ending(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the ``close`` event of a sweep that ended; ``None`` while it runs, a resumed sweep included."""
    last = None
    for event in events:
        last = event if event["event"] == "close" else None
    return last


def _parse(line: bytes, path: Path, offset: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        number = path.read_bytes()[:offset].count(b"\n") + 1
        raise SweepError(f"{path}: line {number} is no event; restore the line, or run a new sweep")
    return in_todays_words(event)
