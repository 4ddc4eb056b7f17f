"""A journal on a disk that is full: the event that does not fit is cut off again, and none follows it."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.journal.events import Journal, JournalError

from ..small_disk import small_disk


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let files grow to a number of bytes and no further; the system takes the part of a write that still fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(journal: Journal) -> int:
    """Append events until one does not fit; return how many did."""
    for written in itertools.count():
        try:
            journal.append("rung", trial="mail/lora/0", step=written, padding="x" * 300)
        except JournalError:
            return written
    raise AssertionError


@pytest.mark.parametrize("event", ["rung", "end"])
def test_journal_cuts_off_an_event_that_does_not_fit(tmp_path: Path, event: str) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("trial", trial="mail/lora/0")
    before = journal.path.read_bytes()
    with (
        largest_file(len(before) + 10),
        pytest.raises(JournalError, match=r"journal\.jsonl cannot be written: File too"),
    ):
        journal.append(event, trial="mail/lora/0", reason="x" * 100)
    assert journal.path.read_bytes() == before


def test_journal_on_a_full_disk_continues_when_resumed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=16) as disk:
        journal = Journal(disk.folder / "journal.jsonl")
        written = fill(journal)
        assert "No space left on device" in str(journal.error)
        assert [event["step"] for event in Journal.read(journal.path)] == list(range(written))
        disk.resize(64)
        with pytest.raises(JournalError, match="No space left"):
            journal.append("end", trial="mail/lora/0")  # a lost event lies before it
        Journal(journal.path).append("resume")
        assert [event["event"] for event in Journal.read(journal.path)][written:] == ["resume"]
