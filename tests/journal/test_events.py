from __future__ import annotations

import json
import math
import threading
from itertools import count
from pathlib import Path

import pytest

from orchestrator.common.errors import SweepError
from orchestrator.journal.events import Journal, read_from


def test_events_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    ticks = count(100.0)
    journal = Journal(tmp_path / "new" / "journal.jsonl", clock=lambda: next(ticks))
    journal.append("trial", trial="mail/lora/0", params={"rank": 8})
    journal.append("end", trial="mail/lora/0", state="complete", reason="")
    assert Journal.read(journal.path) == [
        {"time": 100.0, "event": "trial", "trial": "mail/lora/0", "params": {"rank": 8}},
        {"time": 101.0, "event": "end", "trial": "mail/lora/0", "state": "complete", "reason": ""},
    ]


def test_a_torn_last_line_is_not_read_and_is_cut_before_appending(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("trial", trial="a/b/0")
    with path.open("a") as file:
        file.write('{"time": 1.0, "event": "ru')
    assert [event["event"] for event in Journal.read(path)] == ["trial"]
    Journal(path).append("close", reason="finished")
    assert [event["event"] for event in Journal.read(path)] == ["trial", "close"]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"time": 1.0')
    Journal(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("damage", [b"\x00\xff garbage", b"[1, 2]", b'{"time": 1.0}', b""])
def test_a_damaged_line_in_the_middle_is_an_error_that_says_where(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    whole = b'{"time": 1.0, "event": "trial"}\n'
    path.write_bytes(whole + damage + b"\n" + whole)
    with pytest.raises(SweepError, match=rf"journal\.jsonl: the line at byte {len(whole)} "):
        Journal.read(path)


def test_a_follower_gets_each_event_once_and_never_half_a_line(tmp_path: Path) -> None:
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


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("end", reason="one\u2028two\nthree\x85\r")
    (event,) = Journal.read(journal.path)
    assert event["reason"] == "one\u2028two\nthree\x85\r"


def test_numbers_that_json_lacks_become_null_at_any_depth(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("rung", value=math.nan, metrics={"loss": math.inf, "all": [1.0, -math.inf]})
    (event,) = Journal.read(journal.path)
    assert event["value"] is None
    assert event["metrics"] == {"loss": None, "all": [1.0, None]}


def test_an_event_that_is_no_json_leaves_no_trace(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(TypeError):
        journal.append("rung", value=object())
    assert Journal.read(journal.path) == []


def test_threads_mix_neither_lines_nor_times(tmp_path: Path) -> None:
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
