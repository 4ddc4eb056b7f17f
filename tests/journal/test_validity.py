"""Lines of a journal that are JSON and were never written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.errors import InputError
from orchestrator.journal.validity import require_valid
from orchestrator.sweep.resume import open_sweep

SWEEP = {"time": 1.0, "event": "sweep", "sweep": "tiny-1", "config": {}, "identity": {}, "tasks": {}}
SWEEP |= {"backbone": {}, "directory": "/", "versions": {}}
TRIAL = {"time": 2.0, "event": "trial", "trial": "mail/lora/0", "params": {}, "seed": 7}
RUNG = {"time": 3.0, "event": "rung", "trial": "mail/lora/0", "step": 4, "value": 0.5, "lane_seconds": 1.5}
END = {"time": 4.0, "event": "end", "trial": "mail/lora/0", "state": "complete", "reason": "", "lane_seconds": 1.5}
CLOSE = {"time": 5.0, "event": "close", "reason": "finished", "message": ""}
EARLIER = Path(__file__).parent.parent / "data" / "sweeps_of_0_1"
EVENTS: list[dict[str, Any]] = [SWEEP, TRIAL, RUNG, END, CLOSE]


def write(folder: Path, events: list[dict[str, Any]]) -> Path:
    path = folder / "tiny-1" / "journal.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (1, {"config": []}, "'config' of the event 'sweep' is [], not an object"),
        (2, {"trial": "mail"}, "'trial' of the event 'trial' is 'mail', not TASK/METHOD/NUMBER"),
        (2, {"params": None}, "'params' of the event 'trial' is None, not an object"),
        (3, {"trial": None}, "the event 'rung' has no 'trial'"),
        (3, {"trial": "mail/ia3/0"}, "the trial mail/ia3/0 has not begun on an earlier line"),
        (3, {"step": -4}, "'step' of the event 'rung' is -4, not a whole number from 0"),
        (3, {"value": "0.5"}, "'value' of the event 'rung' is '0.5', not a number or null"),
        (3, {"time": True}, "'time' of the event 'rung' is True, not a number"),
        (4, {"state": "done"}, "'state' of the event 'end' is 'done', not one of complete, pruned, failed, killed"),
        (4, TRIAL, "the trial mail/lora/0 began on an earlier line"),
        (
            5,
            {"event": "registered", "task": "mail", "name": "mail", "version": 1, "aliases": [], "methods": False},
            "'methods' of the event 'registered' is False, not a version for each method",
        ),
        (5, {"reason": ["budget"]}, "'reason' of the event 'close' is ['budget'], not a text"),
    ],
)
def test_wrong_line_is_named_before_anything_is_done(
    line: int, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    events = [dict(event) for event in EVENTS]
    events[line - 1] |= change
    if change == {"trial": None}:
        del events[line - 1]["trial"]
    path = write(tmp_path, events)
    before = path.read_bytes()
    with pytest.raises(InputError) as raised, open_sweep("tiny-1", str(tmp_path)):
        pass
    assert raised.value.lines() == [f"{path}: line {line}: {message}", "restore the line, or run a new sweep"]
    assert path.read_bytes() == before


REGISTERED = {"time": 4.5, "event": "registered", "task": "mail", "name": "mail", "version": 1, "aliases": []}


def test_journal_as_it_was_written_is_valid(tmp_path: Path) -> None:
    registered = {**REGISTERED, "methods": {"lora": {"version": 1, "alias": ""}, "ia3": {"version": 2, "alias": ""}}}
    require_valid(write(tmp_path, [*EVENTS[:-1], registered, CLOSE]))


@pytest.mark.parametrize("journal", sorted(EARLIER.glob("storage/*/journal.jsonl")), ids=lambda path: path.parent.name)
def test_journals_of_release_0_1_are_valid(journal: Path) -> None:
    require_valid(journal)


ANSWER = {"status": "done", "step": 4, "metrics": {"loss": 0.5}, "validation": {}, "checkpoint": None}
ANSWER |= {"measurements": {"train_seconds": None}, "curve": {}, "reason": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"status": None},
        {"status": "lost"},
        {"step": "4"},
        {"metrics": None},
        {"metrics": {"loss": "low"}},
        {"measurements": []},
        {"checkpoint": 7},
        {"score": 0.5},
    ],
    ids=str,
)
def test_answer_that_no_lane_gave_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    answer = {"time": 3.5, "event": "answer", "job": "mail/lora/0/seed-0:0-4:test", "trial": "mail/lora/0"}
    events = [SWEEP, TRIAL, RUNG, {**answer, "answer": ANSWER}, END, CLOSE]
    require_valid(write(tmp_path, events))
    events[3] = {**answer, "answer": {**ANSWER, **change}}
    path = tmp_path / "tiny-1" / "journal.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(InputError) as raised:
        require_valid(path)
    assert "line 4: 'answer' of the event 'answer' is" in raised.value.lines()[0]
    assert raised.value.lines()[0].endswith(", not the answer of a lane")
