"""The copy of a journal in an object store: how it grows, who may write it, and what another machine finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.common.errors import InputError
from orchestrator.common.storage import Storage
from orchestrator.journal import remote
from orchestrator.journal.events import Journal
from orchestrator.journal.folders import find_sweep, split_reference
from orchestrator.journal.remote import Origin, fetch_for_reading, fetch_for_resuming, read_record
from orchestrator.journal.segments import MERGED_AT, SegmentWriter, contiguous, read_segments
from orchestrator.journal.uploader import JournalUploader

from ..s3_server import S3Server, s3_server

SWEEP = "mail-1"
UPLOADERS: list[JournalUploader] = []


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running
        while UPLOADERS:
            UPLOADERS.pop().close(5)


@pytest.fixture
def storage(server: S3Server) -> Storage:
    return Storage.at(server.uri()).sub(SWEEP)


def journal_in(folder: Path, steps: int = 0) -> Journal:
    journal = Journal(folder / SWEEP / "journal.jsonl")
    for step in range(steps):
        journal.append("rung", trial="mail/lora/0", step=step)
    return journal


def uploader_of(journal: Journal, storage: Storage, limit_s: float = 300.0) -> JournalUploader:
    uploader = JournalUploader(journal.path, storage, limit_s=limit_s)
    uploader.start()
    UPLOADERS.append(uploader)
    return uploader


def steps(folder: Path) -> list[int]:
    return [event["step"] for event in Journal.read(folder / SWEEP / "journal.jsonl")]


def test_segments_make_up_the_journal_with_few_bytes(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    written: list[int] = []

    class CountingStorage(Storage):
        def write(self, path: str, content: bytes) -> None:
            written.append(len(content))
            super().write(path, content)

    storage, journal = CountingStorage(str(tmp_path / "store")), journal_in(tmp_path)
    writer = SegmentWriter(journal.path, storage, "journal/a")
    for step in range(3 * MERGED_AT + 10):
        journal.append("rung", trial="mail/lora/0", step=step)
        writer.write()
        writer.write()  # nothing is new
    content = journal.path.read_bytes()
    assert read_segments(storage, "journal/a") == content
    assert writer.end == len(content)
    assert sum(written) <= 2 * len(content), "each byte is uploaded when it is new, and once when files are merged"
    assert len(storage.files("journal/a")) == 3 + 10


def test_segments_read_as_far_as_they_follow_each_other() -> None:
    assert contiguous([]) == []
    assert contiguous([(10, 20), (0, 10), (25, 30)]) == [(0, 10), (10, 20)]
    assert contiguous([(0, 10), (10, 20), (0, 20), (20, 25)]) == [(0, 20), (20, 25)], "a merge that was cut short"


def test_segment_writer_leaves_a_torn_line_out(tmp_path: Path) -> None:
    storage, journal = Storage(str(tmp_path / "store")), journal_in(tmp_path, 2)
    whole = journal.path.read_bytes()
    with journal.path.open("ab") as file:
        file.write(b'{"event": "ru')
    SegmentWriter(journal.path, storage, "journal/a").write()
    assert read_segments(storage, "journal/a") == whole


def test_uploader_brings_the_journal_to_another_machine(storage: Storage, tmp_path: Path) -> None:
    journal = journal_in(tmp_path / "here", 3)
    uploader = uploader_of(journal, storage)
    journal.append("rung", trial="mail/lora/0", step=3)
    assert uploader.flush(60)
    there = tmp_path / "there" / SWEEP
    fetch_for_reading(there, storage)
    assert steps(tmp_path / "there") == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"its driver \(process \d+ on .*\) was alive \d+ s ago") as refused:
        fetch_for_resuming(there, storage, take_over=False)
    assert "--take-over" in refused.value.hint
    journal.append("rung", trial="mail/lora/0", step=4)
    assert uploader.close(60)
    fetch_for_resuming(there, storage, take_over=False)  # it has left the sweep in order
    assert steps(tmp_path / "there") == [0, 1, 2, 3, 4]


def test_silent_driver_can_be_followed(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploader_of(journal_in(tmp_path / "here", 3), storage)
    monkeypatch.setattr(remote, "DRIVER_TIMEOUT_S", -1.0)
    fetch_for_resuming(tmp_path / "there" / SWEEP, storage, take_over=False)
    assert steps(tmp_path / "there") == [0, 1, 2]


def test_driver_stops_when_another_one_takes_over(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.journal.uploader.HEARTBEAT_INTERVAL_S", 0.0)
    first_journal = journal_in(tmp_path / "here", 3)
    first = uploader_of(first_journal, storage)
    assert first.flush(60)
    fetch_for_resuming(tmp_path / "there" / SWEEP, storage, take_over=True)
    second = uploader_of(journal_in(tmp_path / "there"), storage)
    first_journal.append("rung", trial="mail/lora/0", step=99)
    first.wake()
    first._thread.join(60)
    assert first.fault().startswith("another driver (process ")
    assert not first.close(1)
    assert second.fault() == ""
    assert second.close(60)
    fetch_for_reading(tmp_path / "third" / SWEEP, storage)
    assert steps(tmp_path / "third") == [0, 1, 2], "what the first one wrote since then does not count"

    fetch_for_resuming(tmp_path / "here" / SWEEP, storage, take_over=False)
    assert steps(tmp_path / "here") == [0, 1, 2], "its own journal has been continued elsewhere"
    (kept,) = (tmp_path / "here" / SWEEP).glob("journal.jsonl.*")
    assert json.loads(kept.read_text().splitlines()[-1])["step"] == 99


def test_only_one_of_two_resumed_drivers_takes_the_sweep(storage: Storage, tmp_path: Path) -> None:
    uploader_of(journal_in(tmp_path / "here", 3), storage).close(60)
    for name in ("a", "b"):
        fetch_for_resuming(tmp_path / name / SWEEP, storage, take_over=False)
    uploader_of(journal_in(tmp_path / "a"), storage).close(60)
    with pytest.raises(InputError, match="was taken by another driver"):
        uploader_of(journal_in(tmp_path / "b"), storage)


def test_driver_of_the_same_folder_continues_its_longer_journal(
    server: S3Server, storage: Storage, tmp_path: Path
) -> None:
    journal = journal_in(tmp_path / "here", 3)
    uploader = uploader_of(journal, storage)
    assert uploader.flush(60)
    server.stop()
    journal.append("rung", trial="mail/lora/0", step=3)
    assert not uploader.close(0.1), "the driver dies before the storage is back"
    uploader._thread.join(60)  # a dead driver writes nothing more
    server.start()
    fetch_for_resuming(tmp_path / "here" / SWEEP, storage, take_over=False)
    assert steps(tmp_path / "here") == [0, 1, 2, 3]
    uploader_of(journal_in(tmp_path / "here"), storage).close(60)
    fetch_for_reading(tmp_path / "there" / SWEEP, storage)
    assert steps(tmp_path / "there") == [0, 1, 2, 3]
    assert [folder for folder in storage.folders("journal") if storage.files(f"journal/{folder}")] == [
        getattr(read_record(storage), "id", "")
    ], "the former driver's files are deleted"


def test_uploader_reports_a_storage_that_stays_away(server: S3Server, storage: Storage, tmp_path: Path) -> None:
    journal = journal_in(tmp_path, 1)
    uploader = uploader_of(journal, storage, limit_s=0.0)
    assert uploader.flush(60)
    server.stop()
    journal.append("rung", trial="mail/lora/0", step=1)
    assert not uploader.flush(15)
    assert uploader.fault().startswith("the journal could not be copied to the storage for ")
    server.start()
    assert uploader.flush(60)
    assert uploader.fault() == ""
    uploader.close(60)


def test_uploader_refuses_a_storage_that_cannot_be_written(server: S3Server, tmp_path: Path) -> None:
    server.stop()
    with pytest.raises(InputError, match=r"storage: s3://bucket/sweeps/mail-1\S*: cannot be reached"):
        uploader_of(journal_in(tmp_path, 1), Storage.at(server.uri()).sub(SWEEP))
    server.start()
    with pytest.raises(InputError, match="storage: https://host/sweeps: cannot be reached"):
        read_record(Storage.at("https://host/sweeps"))


def test_find_sweep_downloads_from_the_storage(
    server: S3Server, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploader_of(journal_in(tmp_path / "here", 3), storage).close(60)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    folder = tmp_path / "there" / "sweeps" / SWEEP
    assert find_sweep("mail", server.uri()) == folder
    assert steps(tmp_path / "there" / "sweeps") == [0, 1, 2]
    assert Origin.of(folder) == Origin(getattr(read_record(storage), "id", ""), is_copy=True)
    bucket, _, query = server.uri().partition("?")
    assert find_sweep(f"{bucket}/{SWEEP}?{query}") == folder
    assert split_reference(f"{bucket}/{SWEEP}", "sweeps") == (bucket, SWEEP)
    with pytest.raises(InputError, match=r"there is no sweep of that name in s3://bucket/sweeps.*mail-1"):
        find_sweep("nail", server.uri())
