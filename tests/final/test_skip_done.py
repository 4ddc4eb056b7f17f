"""A resumed final: which jobs it does not run again, and which events it does not write again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job
from orchestrator.final.progress import FinalProgress
from orchestrator.final.results import TEST_FILE
from orchestrator.final.run import run_final
from orchestrator.final.skip_done import CachedJobRunner, DedupingJournal
from orchestrator.journal.events import Journal
from orchestrator.sweep.saved_state import SavedSweep

from ..small_plan import small_plan
from .test_final import IA3, LORA, METHODS, PREFIX, Lanes

RECORDS = (*LORA, *IA3, *PREFIX)


class Killed(Exception):
    """Stands for the death of the driver."""


class Driver:
    """Runs a final in a folder, until it is killed.

    Args:
        folder: folder of the sweep.
        answers: number of answers before the driver is killed.
    """

    def __init__(self, folder: Path, answers: int) -> None:
        self.folder, self.answers = folder, answers
        self.journal = Journal(folder / "journal.jsonl")
        self.saved = SavedSweep(folder.name, folder, tuple(Journal.read(self.journal.path)))
        self.lanes = Lanes(folder)

    def each(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        for job in jobs:
            if not self.answers:
                raise Killed
            self.answers -= 1
            (answer,) = self.lanes([job])
            yield job, answer

    def play(self) -> Any:
        run = CachedJobRunner(
            self.each, self.saved.answers, Storage(str(self.folder)), self.journal, FinalProgress(RECORDS)
        )
        journal = DedupingJournal(self.journal, self.saved.events)
        return run_final(small_plan(METHODS), RECORDS, run, Storage(str(self.folder)), journal)


def played(folder: Path, *killed_after: int) -> tuple[Any, list[str], list[dict[str, Any]]]:
    """Return the outcome of the last attempt, the jobs that lanes ran in all, and the journal."""
    jobs: list[str] = []
    for answers in killed_after:
        driver = Driver(folder, answers)
        with pytest.raises(Killed):
            driver.play()
        jobs += [job.id for job in driver.lanes.jobs]
    last = Driver(folder, 1000)
    outcome = last.play()
    return outcome, jobs + [job.id for job in last.lanes.jobs], Journal.read(last.journal.path)


def test_resumed_final_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, whole_jobs, whole_events = played(tmp_path / "whole")
    resumed, jobs, events = played(tmp_path / "killed", 0, 2, 1)
    assert sorted(jobs) == sorted(whole_jobs), "every job was done once"
    assert resumed["mail"].selection == whole["mail"].selection
    written, expected = [
        [(e["event"], e.get("trial"), e.get("seed")) for e in log if e["event"] != "answer"]
        for log in (events, whole_events)
    ]
    assert written == expected


def test_resumed_final_writes_no_event_twice(tmp_path: Path) -> None:
    _, jobs, events = played(tmp_path)
    outcome, again, after = played(tmp_path)
    assert jobs
    assert (again, after) == ([], events)
    assert outcome["mail"].champion.method == "lora"


def test_resumed_final_writes_the_missing_events(tmp_path: Path) -> None:
    _, _, events = played(tmp_path)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    tests = [n for n, event in enumerate(events) if event["event"] == "test"]
    (tmp_path / "journal.jsonl").write_text("".join(lines[: tests[1] + 1]))
    _, again, after = played(tmp_path)
    assert again == []
    assert [{**event, "time": 0} for event in after] == [{**event, "time": 0} for event in events]


def test_resumed_final_repeats_a_job_without_predictions(tmp_path: Path) -> None:
    outcome, jobs, _ = played(tmp_path)
    lost = tmp_path / outcome["mail"].champion.seeds[0].checkpoint
    (lost / TEST_FILE).unlink()
    lost.rmdir()
    _, again, _ = played(tmp_path)
    assert again == [job for job in jobs if "seed-0" in job and "lora/1" in job]


def test_resumed_final_repeats_a_cancelled_job(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")

    def each(jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        yield from ((job, Answer(status="cancelled")) for job in jobs)

    job = Job(trial=LORA[0].key, params={}, seed=0, start=0, stop=4, total=4)
    (answer,) = CachedJobRunner(each, {}, Storage(str(tmp_path)), journal, FinalProgress(RECORDS))([job])
    assert answer.status == "cancelled"
    assert Journal.read(journal.path) == []
