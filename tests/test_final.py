"""Who plays the final, what each has to do there, and what is made of the answers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator.errors import SweepError
from orchestrator.final import TEST_FILE, TaskOutcome, play_final
from orchestrator.plan import SweepPlan
from orchestrator.storage import Storage
from orchestrator.tracking.journal import Journal
from orchestrator.trials import Answer, Job, TrialRecord, trial_seed

from .small_plan import CAUSAL, CLASSIFICATION, small_plan, trial

LORA = (
    trial("mail/lora/0", "pruned", {20: 0.5}),
    trial("mail/lora/1", "complete", {20: 0.6, 40: 0.8}, params={"rank": 4}),
    trial("mail/lora/2", "complete", {20: 0.6, 40: 0.7}),
)
IA3 = (trial("mail/ia3/0", "complete", {20: 0.4, 40: 0.6}), trial("mail/ia3/1", "pruned", {20: 0.9}))
PREFIX = (trial("mail/prefix/0", "pruned", {20: 0.3}), trial("mail/prefix/1", "pruned", {20: 0.2}))
METHODS = ["lora", "ia3", "prefix"]


class Lanes:
    """Answers jobs as lanes do: a checkpoint with predictions, and metrics."""

    def __init__(self, folder: Path, failing: tuple[str, ...] = ()) -> None:
        self.folder, self.failing, self.jobs = folder, failing, list[Job]()

    def __call__(self, jobs: list[Job]) -> list[Answer]:
        self.jobs += jobs
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Answer:
        if str(job.trial) in self.failing:
            return Answer(status="failed", reason=f"{job.trial} is out of memory")
        checkpoint = f"checkpoints/{job.trial}/step-{job.stop}"
        (self.folder / checkpoint).mkdir(parents=True)
        right = [0.9, 0.1] if job.trial.method == "lora" else [0.1, 0.9]
        columns = {"row": range(8), "label": [0] * 8, "nll": [9.0] * 8, "tokens": [3] * 8}
        table = pa.table({**columns, "probabilities": pa.array([right] * 8, pa.list_(pa.float64(), 2))})
        parquet.write_table(table, self.folder / checkpoint / TEST_FILE)
        metrics = {"macro_f1": 0.75, "accuracy": 0.875, "perplexity": 4.0}
        facts = {"seconds": float(job.trial.number)}
        return Answer(status="done", step=job.stop, metrics=metrics, checkpoint=checkpoint, facts=facts)


Play = Callable[..., dict[str, TaskOutcome]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(records: tuple[TrialRecord, ...], lanes: Lanes | None = None, plan: SweepPlan | None = None) -> Any:
        journal = Journal(tmp_path / "journal.jsonl")
        return play_final(
            plan or small_plan(METHODS), records, lanes or Lanes(tmp_path), Storage(str(tmp_path)), journal
        )

    return run


def roles(outcome: TaskOutcome) -> list[tuple[str, str]]:
    return [(str(one.record.key), one.role) for one in outcome.finalists]


def test_the_champion_the_best_of_the_others_and_the_champion_untuned(play: Play) -> None:
    outcome = play((*IA3, *PREFIX, *LORA))["mail"]
    assert roles(outcome) == [
        ("mail/lora/1", "champion"),
        ("mail/ia3/0", "best"),
        ("mail/prefix/0", "best"),
        ("mail/lora/0", "default"),
    ]
    assert outcome.champion is outcome.finalists[0]
    assert [outcome.trials_of(method) for method in METHODS] == [3, 2, 2]


@pytest.mark.parametrize(
    "default",
    [
        None,
        trial("mail/lora/0", "failed", {}),
        trial("mail/lora/0", "failed", {20: math.nan}),  # it diverged
        trial("mail/lora/0", "complete", {20: 0.5, 40: 0.9}),  # it is the champion itself
    ],
)
def test_a_default_that_says_nothing_new_stays_out(play: Play, default: TrialRecord | None) -> None:
    outcome = play((*LORA[1:], *((default,) if default else ()), *IA3))["mail"]
    assert [role for _, role in roles(outcome)] == ["champion", "best"]


def test_each_goes_on_from_its_last_rung_to_the_end(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path)
    play((*LORA, *PREFIX), lanes)
    jobs = {str(job.trial): job for job in lanes.jobs}
    assert {name: (job.start, job.stop, job.total, job.checkpoint) for name, job in jobs.items()} == {
        "mail/lora/1": (40, 40, 40, "checkpoints/mail/lora/1/step-40"),
        "mail/prefix/0": (20, 40, 40, "checkpoints/mail/prefix/0/step-20"),
        "mail/lora/0": (20, 40, 40, "checkpoints/mail/lora/0/step-20"),
    }
    champion = jobs["mail/lora/1"]
    assert champion.params == {"rank": 4}
    assert champion.seed == trial_seed(3, champion.trial)
    assert {job.split for job in lanes.jobs} == {"test"}
    assert len(lanes.jobs) == 3  # nobody looks at the test split twice


def test_scores_intervals_and_facts_come_from_the_answers(play: Play) -> None:
    champion, other, default = play((*LORA, *IA3))["mail"].finalists
    assert (champion.score, champion.metrics["accuracy"]) == (0.75, 0.875)
    assert champion.checkpoint == "checkpoints/mail/lora/1/step-40"
    assert [one.facts["seconds"] for one in (champion, other, default)] == [1.0, 0.0, 0.0]
    right, wrong = champion.interval, other.interval
    assert right[0] <= right[1]
    assert right != wrong
    assert wrong == (0.0, 0.0)


def test_the_journal_gets_every_look_at_the_test_split(play: Play, tmp_path: Path) -> None:
    outcome = play((*LORA, *IA3))["mail"]
    events = Journal.read(tmp_path / "journal.jsonl")
    assert [(e["event"], e["trial"], e["role"]) for e in events] == [
        ("test", name, role) for name, role in roles(outcome)
    ]
    assert (events[0]["score"], events[0]["interval"]) == (0.75, list(outcome.champion.interval))


def test_a_finalist_that_fails_is_missed_but_not_mourned(play: Play, tmp_path: Path) -> None:
    outcome = play((*LORA, *IA3), Lanes(tmp_path, failing=("mail/ia3/0", "mail/lora/0")))["mail"]
    assert roles(outcome) == [("mail/lora/1", "champion")]


def test_a_champion_that_fails_ends_the_sweep(play: Play, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="the champion of task mail failed in the final: mail/lora/1 is out of memory"):
        play((*LORA, *IA3), Lanes(tmp_path, failing=("mail/lora/1",)))
    assert not Journal.read(tmp_path / "journal.jsonl")


def test_a_task_without_a_result_says_why(play: Play, tmp_path: Path) -> None:
    failed = (
        trial("talk/lora/0", "failed", {}, reason=""),
        trial("talk/lora/1", "failed", {}, reason="the loss is not finite"),
        trial("talk/lora/2", "failed", {}, reason="another"),
    )
    lanes = Lanes(tmp_path)
    plan = small_plan(["lora"], {"mail": CLASSIFICATION, "talk": CAUSAL})
    with pytest.raises(SweepError) as raised:
        play((*LORA, *failed), lanes, plan)
    assert str(raised.value) == "no trial of task talk came to a result; talk/lora/1: the loss is not finite"
    assert not lanes.jobs


def test_no_trial_at_all(play: Play) -> None:
    with pytest.raises(SweepError, match=r"came to a result$"):
        play(())


def test_the_lowest_perplexity_is_the_champion(play: Play) -> None:
    plan = small_plan(["lora", "ia3"], {"mail": CLASSIFICATION, "talk": CAUSAL})
    talk = (trial("talk/lora/0", values={40: 9.0}), trial("talk/ia3/0", values={40: 5.0}))
    outcomes = play((*LORA, *talk), plan=plan)
    assert {name: str(outcome.champion.record.key) for name, outcome in outcomes.items()} == {
        "mail": "mail/lora/1",
        "talk": "talk/ia3/0",
    }
    best = outcomes["talk"].champion
    assert best.score == 4.0
    assert best.interval == pytest.approx((math.exp(3), math.exp(3)))
    assert outcomes["talk"].records == talk
