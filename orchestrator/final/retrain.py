"""The final: methods in contention are retrained with fresh seeds, and everything is scored once on the test split.

Who is in contention is decided on validation alone. Their best configurations are trained anew at full length, each
seed with a start, dropout and data order of its own; the best of the other methods is scored as it is, so that its
place can be seen. All of that runs at once over all lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import methods
from orchestrator.common.errors import SweepError
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job, TrialRecord, checkpoint_path, trial_seed
from orchestrator.final.candidates import TEST_FILE, Candidate, read_predictions
from orchestrator.final.decide import Judge
from orchestrator.final.results import Finalist, Role, Scored, TaskOutcome
from orchestrator.planning.plan import SweepPlan
from orchestrator.search.plans import EventLog
from orchestrator.selection.choose import Finalists, finalists
from orchestrator.selection.overall import overall
from orchestrator.selection.screening import Screening, screen

__all__ = ["TEST_FILE", "Finalist", "Role", "Scored", "TaskOutcome", "play_final", "read_predictions"]

Run = Callable[[list[Job]], list[Answer]]
ENOUGH_SEEDS = 2
PARTS = 4
"""What is cut off in the final loses one of so many parts of its steps at most."""


def play_final(
    plan: SweepPlan, records: tuple[TrialRecord, ...], run: Run, storage: Storage, journal: EventLog
) -> dict[str, TaskOutcome]:
    """Train and score every task's finalists, on all lanes at once, and name the winners.

    Args:
        plan: of the sweep.
        records: all trials; who is in the final is decided on validation alone.
        run: does jobs, as many at once as there are lanes, and answers in their order.
        storage: the sweep's folder.
        journal: gets a ``test`` event for each checkpoint, a ``selection`` for each task, and, where there are several
            tasks, a ``selection_overall``.

    Raises:
        SweepError: if a task has no trial that came to a result, or none of its finalists can be scored.
    """
    directions = {name: task.type.metric(task.data.config.metric).higher_is_better for name, task in plan.tasks.items()}
    chosen = finalists(records, higher_is_better=directions)
    if missing := [name for name in plan.tasks if name not in chosen]:
        raise SweepError(f"no trial of task {missing[0]} came to a result{_first_reason(records, missing[0])}")
    finals = [_Final(plan, name, chosen[name], records) for name in plan.tasks]
    _do(run, finals, [job for one in finals for job in one.first_jobs()])
    _do(run, finals, [job for one in finals for job in one.second_jobs()])
    judges = [Judge(plan, one.task, one.candidates(), storage) for one in finals]
    _do(run, finals, [job for one, judge in zip(finals, judges, strict=True) for job in one.default_jobs(judge.winner)])
    outcomes = {one.task: one.outcome(judge) for one, judge in zip(finals, judges, strict=True)}
    for outcome in outcomes.values():
        _note(journal, outcome)
    if len(outcomes) > 1:
        journal.append("selection_overall", **overall([one.selection for one in outcomes.values()]).to_dict())
    return outcomes


def _do(run: Run, finals: Iterable[_Final], jobs: list[Job]) -> None:
    """Have jobs done, if there are any."""
    answers = dict(zip((job.id for job in jobs), run(jobs), strict=True)) if jobs else {}
    for final in finals:
        final.answers.update(answers)


@dataclass
class _Final:
    """One task's final: what has to be done, and what came back."""

    plan: SweepPlan
    task: str
    found: Finalists
    all_records: tuple[TrialRecord, ...]
    answers: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = tuple(r for r in self.all_records if r.key.task == self.task)
        self.split = self._screen()

    def _screen(self) -> Screening:
        task = self.plan.tasks[self.task]
        rows = min(task.data.splits["validation"].num_rows, self.plan.config.training.validation_rows)
        return screen(
            self.found,
            self.records,
            higher_is_better=task.type.metric(task.data.config.metric).higher_is_better,
            rows=rows,
            most=self.plan.config.selection.contenders,
        )

    def first_jobs(self) -> list[Job]:
        """Retrainings of who is in contention, the others' own trials, and the leader's method untuned."""
        jobs = [job for record in self.split.contenders for job in self._jobs_of(record)]
        jobs += [self._own(self.found.by_method[method]) for method in self.split.reasons]
        return jobs + self.default_jobs(self.found.champion)

    def second_jobs(self) -> list[Job]:
        """The own trials of those whose retrainings failed."""
        return [self._own(r) for r in self.split.contenders if self._retrained(r) and not self._enough(r)]

    def default_jobs(self, winner: TrialRecord) -> list[Job]:
        """The default configuration of the winner's method, where it was not scored yet."""
        default = self._default(winner)
        job = self._own(default) if default else None
        return [job] if job and job.id not in self.answers else []

    def candidates(self) -> list[Candidate]:
        """Who was scored, with all answers.

        Raises:
            SweepError: if no method in contention was.
        """
        found = [self._candidate(record, "") for record in self.split.contenders]
        if not any(one.scored for one in found):
            raise SweepError(f"the champion of task {self.task} failed in the final: {found[0].failure}")
        return found + [self._candidate(self.found.by_method[m], why) for m, why in self.split.reasons.items()]

    def outcome(self, judge: Judge) -> TaskOutcome:
        """What was found."""
        default = self._default(judge.winner)
        answer = self.answers.get(self._own(default).id) if default else None
        return judge.outcome(self.records, (default, answer) if default and answer else None)

    def _jobs_of(self, record: TrialRecord) -> list[Job]:
        if not self._retrained(record):
            return [self._own(record)]
        return [self._retraining(record, number) for number in range(self.plan.config.selection.seeds)]

    def _candidate(self, record: TrialRecord, reason: str) -> Candidate:
        own = self.answers.get(self._own(record).id)
        answers: Mapping[int | None, Answer] = {None: own} if own else {}
        note = ""
        if not reason and self._retrained(record):
            done = {n: self.answers[self._retraining(record, n).id] for n in range(self.plan.config.selection.seeds)}
            failed = next((one.reason for one in done.values() if one.status != "done"), "")
            answers = {n: one for n, one in done.items() if one.status == "done"} if self._enough(record) else answers
            note = f"{sum(a.status != 'done' for a in done.values())} retrainings failed: {failed}" if failed else ""
        return Candidate(record, answers, reason, note)

    def _retrained(self, record: TrialRecord) -> bool:
        return self.plan.config.selection.seeds >= ENOUGH_SEEDS and methods.get(record.key.method).trains

    def _enough(self, record: TrialRecord) -> bool:
        numbers = range(self.plan.config.selection.seeds)
        done = sum(self.answers[self._retraining(record, number).id].status == "done" for number in numbers)
        return done >= ENOUGH_SEEDS

    def _default(self, winner: TrialRecord) -> TrialRecord | None:
        """The first trial of the winner's method, unless it says nothing new."""
        default = next((r for r in self.records if r.key.study == winner.key.study and r.key.number == 0), None)
        return default if default and default.key != winner.key and math.isfinite(default.value) else None

    def _retraining(self, record: TrialRecord, number: int) -> Job:
        return Job(
            trial=record.key,
            params=dict(record.params),
            seed=trial_seed(self.plan.config.seed, record.key, number),
            start=0,
            stop=self.plan.rungs[-1],
            total=self.plan.rungs[-1],
            split="test",
            retraining=number,
            keep_every=self._keep_every,
        )

    def _own(self, record: TrialRecord) -> Job:
        return Job(
            trial=record.key,
            params=dict(record.params),
            seed=trial_seed(self.plan.config.seed, record.key),
            start=record.step,
            stop=self.plan.rungs[-1],
            total=self.plan.rungs[-1],
            checkpoint=checkpoint_path(record.key, record.step),
            split="test",
            keep_every=self._keep_every,
        )

    @property
    def _keep_every(self) -> int:
        return math.ceil(self.plan.rungs[-1] / PARTS)


def _note(journal: EventLog, outcome: TaskOutcome) -> None:
    """Every look at the test split, the kept checkpoint of a method last; then the selection."""
    for one in outcome.finalists:
        for scored in sorted(one.scored, key=lambda s: s.checkpoint == one.checkpoint):
            journal.append(
                "test",
                trial=str(one.record.key),
                role=one.role if scored.checkpoint == one.checkpoint else "seed",
                seed=scored.seed,
                step=scored.step,
                score=scored.score,
                interval=list(scored.interval),
                validation=scored.validation,
                metrics=scored.metrics,
                measurements=scored.measurements,
            )
    journal.append("selection", **outcome.selection.to_dict())


def _first_reason(records: tuple[TrialRecord, ...], task: str) -> str:
    reasons = [f"{r.key}: {r.reason}" for r in records if r.key.task == task and r.reason]
    return f"; {reasons[0]}" if reasons else ""
