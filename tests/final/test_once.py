"""What a resumed sweep asks no lane for, and does not write down again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job
from orchestrator.final.candidates import TEST_FILE
from orchestrator.final.replay import CachedJobRunner, DedupingJournal
from orchestrator.final.retrain import play_final
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.tracking.journal import Journal

from ..small_plan import small_plan
from .test_final import IA3, LORA, METHODS, PREFIX, Lanes

RECORDS = (*LORA, *IA3, *PREFIX)


class Killed(Exception):
    """The driver dies."""


class Driver:
    """Plays a final in a folder, as often as it takes.

    Args:
        folder: the sweep's.
        lives: how many answers come before the driver dies.
    """

    def __init__(self, folder: Path, lives: int) -> None:
        self.folder, self.left = folder, lives
        self.journal = Journal(folder / "journal.jsonl")
        self.saved = SavedSweep(folder.name, folder, tuple(Journal.read(self.journal.path)))
        self.lanes = Lanes(folder)

    def each(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        for job in jobs:
            if not self.left:
                raise Killed
            self.left -= 1
            (answer,) = self.lanes([job])
            yield job, answer

    def play(self) -> Any:
        run = CachedJobRunner(self.each, self.saved.answers, Storage(str(self.folder)), self.journal)
        journal = DedupingJournal(self.journal, self.saved.events)
        return play_final(small_plan(METHODS), RECORDS, run, Storage(str(self.folder)), journal)


def played(folder: Path, *lives: int) -> tuple[Any, list[str], list[dict[str, Any]]]:
    """The outcome of the last life, all jobs that lanes did, and the journal."""
    jobs: list[str] = []
    for life in lives:
        driver = Driver(folder, life)
        with pytest.raises(Killed):
            driver.play()
        jobs += [job.id for job in driver.lanes.jobs]
    last = Driver(folder, 1000)
    outcome = last.play()
    return outcome, jobs + [job.id for job in last.lanes.jobs], Journal.read(last.journal.path)


def test_a_final_that_is_taken_up_again_is_the_final_that_was_not_interrupted(tmp_path: Path) -> None:
    whole, whole_jobs, whole_events = played(tmp_path / "whole")
    found, jobs, events = played(tmp_path / "killed", 0, 2, 1)
    assert sorted(jobs) == sorted(whole_jobs), "every job was done once"
    assert found["mail"].selection == whole["mail"].selection
    told = [
        [(e["event"], e.get("trial"), e.get("seed")) for e in log if e["event"] != "answer"]
        for log in (events, whole_events)
    ]
    assert told[0] == told[1]


def test_a_final_that_was_played_is_told_once(tmp_path: Path) -> None:
    _, jobs, events = played(tmp_path)
    outcome, again, after = played(tmp_path)
    assert jobs
    assert (again, after) == ([], events)
    assert outcome["mail"].champion.record.key.method == "lora"


def test_a_final_that_was_told_in_part_is_told_to_its_end(tmp_path: Path) -> None:
    _, _, events = played(tmp_path)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    told = [n for n, event in enumerate(events) if event["event"] == "test"]
    (tmp_path / "journal.jsonl").write_text("".join(lines[: told[1] + 1]))
    _, again, after = played(tmp_path)
    assert again == []
    assert [{**event, "time": 0} for event in after] == [{**event, "time": 0} for event in events]


def test_an_answer_whose_predictions_are_gone_is_asked_for_again(tmp_path: Path) -> None:
    outcome, jobs, _ = played(tmp_path)
    gone = outcome["mail"].champion.scored[0].checkpoint
    (tmp_path / gone / TEST_FILE).unlink()
    (tmp_path / gone).rmdir()
    _, again, _ = played(tmp_path)
    assert again == [job for job in jobs if "seed-0" in job and "lora/1" in job]


def test_what_was_cancelled_was_not_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")

    def each(jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        yield from ((job, Answer(status="cancelled")) for job in jobs)

    job = Job(trial=LORA[0].key, params={}, seed=0, start=0, stop=4, total=4)
    (answer,) = CachedJobRunner(each, {}, Storage(str(tmp_path)), journal)([job])
    assert answer.status == "cancelled"
    assert Journal.read(journal.path) == []
