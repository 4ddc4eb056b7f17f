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

# These events are on disk before work goes on. If the machine dies, others may be lost: they follow from the events
# around them, or their work is done again.
_DURABLE = frozenset({"sweep", "resume", "end", "searched", "answer", "test", "selection", "registered", "close"})


class Journal:
    """Writer of a journal. A journal has one writer and any number of readers.

    Args:
        path: the file; created with its folder. An incomplete last line is cut off.
        clock: function that returns the ``time`` of an event, in seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        cut_torn_line(path)
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()

    def append(self, event: str, **fields: Any) -> None:
        """Write one event. Safe to call from any thread; readers see the event when this returns.

        Args:
            event: kind of the event.
            fields: JSON values; numbers that are not finite become null.
        """
        with self._lock:
            line = json.dumps({"time": self._clock(), "event": event, **finite(fields)}, allow_nan=False)
            with self.path.open("ab") as file:
                file.write(line.encode() + b"\n")
                file.flush()
                if event in _DURABLE:
                    os.fsync(file.fileno())

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """Return all events of a journal, in today's words.

        Args:
            path: the journal of any release; a missing file has no events.

        Raises:
            SweepError: if a line is not a JSON object.
        """
        return read_from(path, 0)[0]


def read_from(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the events that were written since the last call, for readers that follow a running sweep.

    Args:
        path: the journal; a missing file has no events.
        offset: position in bytes: 0 at first, then the offset that the last call returned.

    Returns:
        The events of all complete lines, and the offset of the next call.

    Raises:
        SweepError: if a line is not a JSON object.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
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
    if not isinstance(event, dict) or "event" not in event:
        raise SweepError(f"{path}: the line at byte {offset} is not an event; the journal is damaged")
    return in_todays_words(event)
