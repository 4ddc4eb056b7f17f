"""The final: the best trial of each method is brought to full length and scored once on the test split."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pyarrow import parquet

from orchestrator.errors import SweepError
from orchestrator.plan import SweepPlan, TaskPlan
from orchestrator.selection.choose import Finalists, finalists
from orchestrator.selection.intervals import bootstrap_interval
from orchestrator.storage import Storage
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.registry import Registered
from orchestrator.trials import Answer, Job, TrialRecord, checkpoint_path, trial_seed

Role = Literal["champion", "best", "default"]
TEST_FILE = "test.parquet"


@dataclass(frozen=True)
class Finalist:
    """A trial's one look at the test split.

    Args:
        record: the trial.
        role: ``champion``; ``best`` of its method; ``default``, what the champion's method does untuned.
        score: the task's metric on the test split.
        interval: 95 %, bootstrap over rows.
        metrics: all metrics on the test split.
        facts: trainable parameters, bytes, seconds and the like.
        checkpoint: its folder, relative to the sweep's.
        step: optimizer steps that it was trained for.
    """

    record: TrialRecord
    role: Role
    score: float
    interval: tuple[float, float]
    metrics: dict[str, float]
    facts: dict[str, float]
    checkpoint: str
    step: int = 0


@dataclass
class TaskOutcome:
    """What a sweep found for one task.

    Args:
        plan: the task.
        finalists: the champion first, then the best of the other methods, best validation score first.
        records: all the task's trials.
        registered: name, version and alias in the registry, once the champion is there.
        unregistered: why it is not.
    """

    plan: TaskPlan
    finalists: list[Finalist]
    records: tuple[TrialRecord, ...]
    registered: Registered | None = None
    unregistered: str = ""

    @property
    def champion(self) -> Finalist:
        """The best trial on validation."""
        return self.finalists[0]

    def trials_of(self, method: str) -> int:
        """How many trials a method had."""
        return sum(record.key.method == method for record in self.records)


def play_final(
    plan: SweepPlan,
    records: tuple[TrialRecord, ...],
    run: Callable[[list[Job]], list[Answer]],
    storage: Storage,
    journal: Journal,
) -> dict[str, TaskOutcome]:
    """Train and score every task's finalists, on all lanes at once.

    Args:
        plan: of the sweep.
        records: all trials; who is in the final is decided on validation alone.
        run: does jobs, as many at once as there are lanes, and answers in their order.
        storage: the sweep's folder.
        journal: gets a ``test`` event for each.

    Raises:
        SweepError: if a task has no trial that came to a result, or its champion cannot be scored.
    """
    directions = {name: task.type.higher_is_better(task.data.config.metric) for name, task in plan.tasks.items()}
    chosen = finalists(records, higher_is_better=directions)
    if missing := [name for name in plan.tasks if name not in chosen]:
        raise SweepError(f"no trial of task {missing[0]} came to a result{_first_reason(records, missing[0])}")
    entries = {name: _entries(found, records) for name, found in chosen.items()}
    jobs = [_job(plan, record) for one in entries.values() for _, record in one]
    answers = dict(zip((job.trial for job in jobs), run(jobs), strict=True))
    outcomes = {}
    for name, task in plan.tasks.items():
        own = tuple(r for r in records if r.key.task == name)
        scored = [_score(plan, task, role, r, answers[r.key], storage) for role, r in entries[name]]
        champion, *others = scored
        if champion is None:
            raise SweepError(
                f"the champion of task {name} failed in the final: {answers[entries[name][0][1].key].reason}"
            )
        found = [champion, *(one for one in others if one is not None)]
        for one in found:
            _note(journal, one)
        outcomes[name] = TaskOutcome(task, found, own)
    return outcomes


def _entries(found: Finalists, records: tuple[TrialRecord, ...]) -> list[tuple[Role, TrialRecord]]:
    """The champion, the best of the other methods, and the default configuration of the champion's method."""
    champion = found.champion
    entries: list[tuple[Role, TrialRecord]] = [("champion", champion)]
    entries += [("best", record) for record in found.by_method.values() if record is not champion]
    default = next((r for r in records if r.key.study == champion.key.study and r.key.number == 0), None)
    if default is not None and default is not champion and math.isfinite(default.value):
        entries.append(("default", default))
    return entries


def _job(plan: SweepPlan, record: TrialRecord) -> Job:
    return Job(
        trial=record.key,
        params=dict(record.params),
        seed=trial_seed(plan.config.seed, record.key),
        start=record.step,
        stop=plan.rungs[-1],
        total=plan.rungs[-1],
        checkpoint=checkpoint_path(record.key, record.step),
        split="test",
    )


def _score(
    plan: SweepPlan, task: TaskPlan, role: Role, record: TrialRecord, answer: Answer, storage: Storage
) -> Finalist | None:
    if answer.status != "done" or answer.checkpoint is None:
        return None
    predictions = read_predictions(storage, answer.checkpoint)
    metric = task.data.config.metric
    return Finalist(
        record=record,
        role=role,
        score=answer.metrics[metric],
        interval=bootstrap_interval(
            lambda draws: task.type.score_many(metric, predictions, draws), predictions.num_rows, seed=plan.config.seed
        ),
        metrics=answer.metrics,
        facts=answer.facts,
        checkpoint=answer.checkpoint,
        step=answer.step,
    )


def read_predictions(storage: Storage, checkpoint: str) -> pa.Table:
    """What a finalist predicted for every test row."""
    with tempfile.TemporaryDirectory() as folder:
        storage.download(f"{checkpoint}/{TEST_FILE}", Path(folder) / TEST_FILE)
        return parquet.read_table(Path(folder) / TEST_FILE)


def _note(journal: Journal, one: Finalist) -> None:
    journal.append(
        "test",
        trial=str(one.record.key),
        role=one.role,
        step=one.step,
        score=one.score,
        interval=list(one.interval),
        metrics=one.metrics,
        facts=one.facts,
    )


def _first_reason(records: tuple[TrialRecord, ...], task: str) -> str:
    reasons = [f"{r.key}: {r.reason}" for r in records if r.key.task == task and r.reason]
    return f"; {reasons[0]}" if reasons else ""
