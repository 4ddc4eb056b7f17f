"""Checkpoints that nothing reads again are deleted, and no others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.common.storage import Storage
from orchestrator.journal.events import Journal, read_from
from orchestrator.sweep.checkpoint_cleaner import CheckpointCleaner
from orchestrator.sweep.unneeded_checkpoints import UnneededCheckpoints

SWEEP = {"event": "sweep", "tasks": {"mail": {"higher_is_better": True}}}


def trial(number: int, *values: float, end: str = "", method: str = "lora") -> list[dict[str, Any]]:
    """Return the events of a trial with values at steps 1, 2 and 4, which ends if ``end`` is given."""
    key = f"mail/{method}/{number}"
    rungs = [
        {"event": "rung", "trial": key, "step": step, "value": value}
        for step, value in zip((1, 2, 4), values, strict=False)
    ]
    ends = [{"event": "end", "trial": key, "state": end}] if end else []
    return [{"event": "trial", "trial": key}, *rungs, *ends]


def unneeded(*events: dict[str, Any]) -> list[str]:
    checkpoints = UnneededCheckpoints()
    return [folder for event in (SWEEP, *events) for folder in checkpoints.after(event)]


def test_rung_makes_the_one_before_unneeded() -> None:
    assert unneeded(*trial(1, 0.5)) == []
    assert unneeded(*trial(1, 0.5, 0.6)) == ["checkpoints/mail/lora/1/step-1"]
    assert unneeded(*trial(1, 0.5, 0.6, 0.7, end="complete")) == [
        "checkpoints/mail/lora/1/step-1",
        "checkpoints/mail/lora/1/step-2",
        "checkpoints/mail/lora/1/under-way",
    ]


def test_ended_trials_are_kept_while_the_final_may_read_them() -> None:
    first, better, worse = trial(0, 0.1, end="pruned"), trial(1, 0.3, end="pruned"), trial(2, 0.2, end="pruned")
    assert unneeded(*first, *better) == [], "the first has the default configuration"
    assert unneeded(*first, *better, *worse) == ["checkpoints/mail/lora/2"]
    assert unneeded(*first, *worse, *better) == ["checkpoints/mail/lora/2"]
    assert unneeded(*first, *better, *trial(2, 0.3, end="pruned")) == ["checkpoints/mail/lora/2"], (
        "of equals, the first"
    )
    assert unneeded(*better, *trial(0, 0.9, end="pruned", method="ia3")) == [], "each method has a best trial"
    further = trial(2, 0.1, 0.1, end="pruned")
    assert unneeded(*first, *better, *further)[1:] == ["checkpoints/mail/lora/1"], "a later rung goes before"
    selection = {"event": "selection", "task": "mail"}
    assert unneeded(*first, *better, selection) == ["checkpoints/mail/lora/0/step-1", "checkpoints/mail/lora/1/step-1"]


def test_failed_trials_and_answered_jobs_leave_nothing() -> None:
    assert unneeded(*trial(1, 0.5, end="failed")) == ["checkpoints/mail/lora/1"]
    assert unneeded(*trial(0, end="failed")) == ["checkpoints/mail/lora/0"]
    answer = {"event": "answer", "job": "mail/peft:VERA/3/seed-1:0-4:test"}
    assert unneeded(answer) == ["checkpoints/mail/peft.VERA/3/seed-1/under-way"]


def store(storage: Storage, *folders: str) -> None:
    for folder in folders:
        storage.write(f"checkpoints/mail/lora/{folder}/state.json", b"{}")


def test_cleaner_deletes_only_what_the_durable_journal_does_not_need(tmp_path: Path) -> None:
    storage, journal = Storage(str(tmp_path)), Journal(tmp_path / "journal.jsonl")
    durable = [0]
    cleaner = CheckpointCleaner(journal.path, storage, lambda: durable[0])
    store(storage, "1/step-1", "1/step-2", "2/step-1", "3/step-1", "3/step-1-test")
    for event in (SWEEP, *trial(1, 0.5), *trial(3, 0.9, end="pruned"), *trial(2, 0.4, end="pruned")):
        journal.append(**event)
    before = journal.sync()
    journal.append("rung", trial="mail/lora/1", step=2, value=0.6)
    everything = sorted(storage.files("checkpoints"))
    cleaner.clean()
    assert sorted(storage.files("checkpoints")) == everything
    durable[0] = before
    cleaner.clean()
    assert sorted({Path(file).parent.name for file in storage.files("checkpoints/mail/lora/1")}) == ["step-1", "step-2"]
    assert storage.files("checkpoints/mail/lora/2") == {}
    durable[0] = journal.sync()
    cleaner.clean()
    assert sorted({Path(file).parent.name for file in storage.files("checkpoints/mail/lora/1")}) == ["step-2"]
    assert len(storage.files("checkpoints/mail/lora/3")) == 2


def test_no_prefix_of_a_journal_needs_a_deleted_checkpoint(tmp_path: Path) -> None:
    """Whatever the journal has lost, what it still tells to be a trial's last rung has its checkpoint."""
    events = [
        SWEEP,
        *trial(0, 0.1, 0.2),
        *trial(1, 0.5, 0.6, 0.7, end="complete"),
        *trial(2, 0.3, end="pruned"),
        {"event": "end", "trial": "mail/lora/0", "state": "pruned"},
    ]
    for length in range(1, len(events) + 1):
        folder = tmp_path / str(length)
        storage, journal = Storage(str(folder)), Journal(folder / "journal.jsonl")
        store(storage, *(f"{number}/step-{step}" for number in range(3) for step in (1, 2, 4)))
        for event in events[:length]:
            journal.append(**event)
        durable = journal.sync()
        for event in events[length:]:
            journal.append(**event)  # written, and lost with the machine
        CheckpointCleaner(journal.path, storage, partial(int, durable)).clean()
        kept, _ = read_from(journal.path, 0, durable)
        last = {e["trial"]: e["step"] for e in kept if e["event"] == "rung"}
        ended = {e["trial"] for e in kept if e["event"] == "end"}
        for key in last.keys() - ended:
            assert storage.exists(f"checkpoints/{key}/step-{last[key]}/state.json")
