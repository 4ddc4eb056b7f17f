"""Whatever a journal holds, it is a sweep's state, or a line that tells where it is damaged."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from orchestrator.journal.folders import JOURNAL
from orchestrator.journal.validity import require_valid
from orchestrator.sweep.saved_state import SavedSweep
from tests.inputs.generated import changed, ends_well, json_values, tried

SWEEPS = Path(__file__).parents[1] / "data" / "sweeps_of_0_1" / "storage"
LINES = (next(SWEEPS.glob("finished-*")) / JOURNAL).read_text().splitlines()
EVENTS = [json.loads(line) for line in LINES]
PROPERTIES: tuple[str, ...] = (
    "description",
    "attempts",
    "wall_seconds",
    "search_ended",
    "trials_done",
    "trials_left",
    "has_result",
)
PROPERTIES += ("answers", "registered", "finished", "can_resume")


def read(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder) / JOURNAL).write_bytes(content)

        def work() -> None:
            require_valid(file)
            saved = SavedSweep.of(file.parent)
            for name in PROPERTIES:
                getattr(saved, name)

        ends_well(work)


def check_event(parts: tuple[int, Any]) -> None:
    number, event = parts
    lines = [*LINES[:number], json.dumps(event), *LINES[number + 1 :]]
    read(("\n".join(lines) + "\n").encode())


def check_bytes(parts: tuple[int, int, bytes]) -> None:
    start, stop, junk = parts
    content = ("\n".join(LINES) + "\n").encode()
    read(content[: start % len(content)] + junk + content[stop % len(content) :])


events = st.integers(0, len(EVENTS) - 1).flatmap(
    lambda number: st.tuples(st.just(number), changed(EVENTS[number], json_values) | json_values)
)
places = st.integers(0, 10**6)

test_journal_event, test_journal_event_many_times = tried(events)(check_event)
test_journal_bytes, test_journal_bytes_many_times = tried(st.tuples(places, places, st.binary(max_size=4)))(check_bytes)
