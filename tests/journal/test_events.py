"""The journal's events: written, read, and followed while they are written."""

from __future__ import annotations

import json
import math
import threading
from itertools import count
from pathlib import Path

import pytest

from orchestrator.common.errors import SweepError
from orchestrator.journal.events import Journal, read_from


def test_journal_returns_events_in_order_with_their_times(tmp_path: Path) -> None:
    ticks = count(100.0)
    journal = Journal(tmp_path / "new" / "journal.jsonl", clock=lambda: next(ticks))
    journal.append("trial", trial="mail/lora/0", params={"rank": 8})
    journal.append("end", trial="mail/lora/0", state="complete", reason="")
    assert Journal.read(journal.path) == [
        {"time": 100.0, "event": "trial", "trial": "mail/lora/0", "params": {"rank": 8}},
        {"time": 101.0, "event": "end", "trial": "mail/lora/0", "state": "complete", "reason": ""},
    ]


def test_journal_ignores_and_cuts_an_incomplete_last_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("trial", trial="a/b/0")
    with path.open("a") as file:
        file.write('{"time": 1.0, "event": "ru')
    assert [event["event"] for event in Journal.read(path)] == ["trial"]
    Journal(path).append("close", reason="finished")
    assert [event["event"] for event in Journal.read(path)] == ["trial", "close"]


def test_journal_of_one_incomplete_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"time": 1.0')
    Journal(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("damage", [b"\x00\xff garbage", b"[1, 2]", b'{"time": 1.0}', b""])
def test_journal_read_reports_the_position_of_a_damaged_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    whole = b'{"time": 1.0, "event": "trial"}\n'
    path.write_bytes(whole + damage + b"\n" + whole)
    with pytest.raises(SweepError, match=r"journal\.jsonl: line 2 is no event; restore"):
        Journal.read(path)


def test_read_from_returns_each_event_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read_from(path, 0) == ([], 0)
    journal = Journal(path, clock=lambda: 0.0)
    journal.append("a")
    events, offset = read_from(path, 0)
    assert [event["event"] for event in events] == ["a"]
    line = json.dumps({"time": 0.0, "event": "b"}) + "\n"
    for end in range(1, len(line)):
        with path.open("a") as file:
            file.write(line[end - 1])
        assert read_from(path, offset) == ([], offset)
    with path.open("a") as file:
        file.write("\n")
    events, offset = read_from(path, offset)
    assert [event["event"] for event in events] == ["b"]
    assert read_from(path, offset) == ([], path.stat().st_size)


def test_journal_keeps_line_separators_inside_texts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("end", reason="one\u2028two\nthree\x85\r")
    (event,) = Journal.read(journal.path)
    assert event["reason"] == "one\u2028two\nthree\x85\r"


def test_journal_writes_nan_and_infinity_as_null(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("rung", value=math.nan, metrics={"loss": math.inf, "all": [1.0, -math.inf]})
    (event,) = Journal.read(journal.path)
    assert event["value"] is None
    assert event["metrics"] == {"loss": None, "all": [1.0, None]}


def test_journal_refuses_values_that_are_not_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(TypeError):
        journal.append("rung", value=object())
    assert Journal.read(journal.path) == []


def test_journal_append_is_safe_from_several_threads(tmp_path: Path) -> None:
    ticks = count(0.0)
    journal = Journal(tmp_path / "journal.jsonl", clock=lambda: next(ticks))

    def write(writer: int) -> None:
        for i in range(100):
            journal.append("rung", writer=writer, i=i, padding="x" * 1000)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = Journal.read(journal.path)
    assert [event["time"] for event in events] == list(range(800))
    for writer in range(8):
        assert [event["i"] for event in events if event["writer"] == writer] == list(range(100))
