"""The sweep journal: everything that happened, one JSON object per line, in order.

It is written before anything else learns of an event, so that MLflow, the report and a resumed sweep
can be rebuilt from it. Only whole lines count: a line that was cut by a crash never happened.
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
from orchestrator.tracking.earlier_journals import in_todays_words

# An event that is lost can be told from its neighbours, except these: they are on disk before work goes on.
_DURABLE = frozenset({"sweep", "resume", "end", "searched", "answer", "test", "selection", "registered", "close"})


class Journal:
    """Appends events to a file; one writer, any number of readers.

    Args:
        path: the file; created with its folder. A torn last line is cut off.
        clock: seconds since 1970, the ``time`` of each event.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        cut_torn_line(path)
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()

    def append(self, event: str, **fields: Any) -> None:
        """Write one event. From any thread; readers see it when this returns.

        Args:
            event: its name.
            fields: JSON values. Numbers that are not finite become null, since JSON has none.
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
        """All events of a journal, without a torn last line.

        Raises:
            SweepError: if a line is not a JSON object.
        """
        return read_from(path, 0)[0]


def read_from(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The events that were written since the last call, for readers that follow a running sweep.

    Args:
        path: the journal; one that does not exist yet has no events.
        offset: 0 at first, then what the last call returned.

    Returns:
        The events from whole lines only, and the offset to go on from.

    Raises:
        SweepError: if a line is not a JSON object.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        whole = file.read()
    whole = whole[: whole.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines(keepends=True):
        events.append(_parse(line, path, offset))
        offset += len(line)
    return events, offset


def ending(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The ``close`` event that counts: the last, unless anything has happened since, as in a sweep that was resumed."""
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
