"""Plan the jobs of one task's final, which retrain its finalists, and read the results from the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import methods
from orchestrator.common.errors import SweepError
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job, TrialRecord, checkpoint_path, trial_seed
from orchestrator.final.decide import decide
from orchestrator.final.results import AnswerReader, TaskOutcome
from orchestrator.final.samples import samples
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.best_trials import BestTrials
from orchestrator.selection.screening import Screening, screen
from orchestrator.selection.selection import Selection

RunJobs = Callable[[list[Job]], list[Answer]]
MIN_SEEDS = 2
"""Retrainings that are needed for a mean with an interval over seeds."""
PARTIAL_STATE_INTERVALS = 4
"""Intervals of a job of the final between which its partial state is saved; a lane's death costs at most one."""


@dataclass(frozen=True)
class Look:
    """A look at the test split; every extension of a sweep adds one.

    Args:
        number: number of the look, from 1.
        finalists: by task, the methods that were finalists at earlier looks. They are finalists again: whoever extends
            a sweep wants to know whether the answer holds.
    """

    number: int = 1
    finalists: Mapping[str, Collection[str]] = field(default_factory=dict)

    def kept(self, task: str, screening: Screening, best: BestTrials) -> Screening:
        """Return a screening that keeps the finalists of earlier looks."""
        kept = [method for method in screening.reasons if method in self.finalists.get(task, ())]
        reasons = {method: why for method, why in screening.reasons.items() if method not in kept}
        finalists = (*screening.finalists, *(best.by_method[method] for method in kept))
        cut, undecided = screening.cut - set(kept), screening.undecided - set(kept)
        return replace(screening, finalists=finalists, reasons=reasons, cut=cut, undecided=undecided)


FIRST_LOOK = Look()


@dataclass
class TaskFinal:
    """The final of one task.

    Args:
        plan: plan of the sweep.
        task: name of the task.
        best: best trials of the task.
        all_records: all trials of the sweep.
        storage: storage of the sweep's folder.
        look: which look at the test split it is.
        answers: answers to the jobs that were run so far, by job; added by the caller.
    """

    plan: SweepPlan
    task: str
    best: BestTrials
    all_records: tuple[TrialRecord, ...]
    storage: Storage
    look: Look = FIRST_LOOK
    answers: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        task, seed = self.plan.tasks[self.task], self.plan.config.seed
        self.records = tuple(r for r in self.all_records if r.key.task == self.task)
        self.reader = AnswerReader(task, self.storage, seed=seed)
        self.screening = self._screen()

    def _screen(self) -> Screening:
        validation = self.plan.tasks[self.task].data.splits["validation"]
        rows = min(len(validation["row"].unique()), self.plan.config.training.validation_rows)
        limit = self.plan.config.selection.contenders
        screening = screen(self.best, self.records, self.reader.metric, rows=rows, max_finalists=limit)
        return self.look.kept(self.task, screening, self.best)

    def first_jobs(self) -> list[Job]:
        """Return retrainings of the finalists, and what is only scored.

        That is the eliminated methods' trials, the leader's method with its defaults, and the untuned backbone.
        """
        jobs = [job for record in self.screening.finalists for job in self._jobs_of(record)]
        jobs += [self._trial_job(self.best.by_method[method]) for method in self.screening.reasons]
        jobs += [job] if (job := self._untuned_job()) else []
        return jobs + self.default_jobs(str(self.best.leader.key))

    def second_jobs(self) -> list[Job]:
        """Return the trials of the finalists whose retrainings failed."""
        failed = (r for r in self.screening.finalists if self._is_retrained(r) and not self._has_enough_seeds(r))
        return [self._trial_job(record) for record in failed]

    def default_jobs(self, winner: str) -> list[Job]:
        """Return the job that scores the default configuration of a trial's method, unless it was scored already."""
        default = self._default(winner)
        job = self._trial_job(default) if default else None
        return [job] if job and job.id not in self.answers else []

    def select(self) -> Selection:
        """Choose the task's method.

        Raises:
            SweepError: if no finalist was scored.
        """
        results, failed = [], dict[str, str]()
        eliminated = [(self.best.by_method[method], reason) for method, reason in self.screening.reasons.items()]
        for record, reason in [*((record, "") for record in self.screening.finalists), *eliminated]:
            answers, note = self._answers_of(record, reason)
            result = self.reader.method_result(record, answers, reason=reason, note=note)
            if result:
                method = record.key.method
                is_cut, is_undecided = method in self.screening.cut, method in self.screening.undecided
                trials = self._full_trials(method)
                results.append(replace(result, cut=is_cut, undecided=is_undecided, trials=trials))
            else:
                reasons = (answer.reason for answer in answers.values() if answer.reason)
                failed[record.key.method] = next(reasons, note or "it was cancelled")
        if all(result.reason for result in results):
            first = self.screening.finalists[0].key.method
            raise SweepError(f"the champion of task {self.task} failed in the final: {failed[first]}")
        job = self._untuned_job()
        untuned = self.answers.get(job.id) if job else None
        checkpoint = untuned.checkpoint if untuned else None
        return decide(
            self.plan,
            self.task,
            self.reader,
            results,
            failed,
            untuned=checkpoint,
            tuning_unit=self.screening.unit,
            look=self.look.number,
        )

    def _full_trials(self, method: str) -> int:
        """Return how many trials of a method came to the last rung."""
        last, trials = self.plan.rungs[-1], [record for record in self.records if record.key.method == method]
        return sum(math.isfinite(trial.values.get(last, math.nan)) for trial in trials)

    def outcome(self, selection: Selection) -> TaskOutcome:
        """Return the outcome, once the default configuration was scored as well."""
        default = self._default(selection.trial)
        answer = self.answers.get(self._trial_job(default).id) if default else None
        untuned = self.reader.method_result(default, {None: answer}) if default and answer else None
        return TaskOutcome(self.plan.tasks[self.task], selection, self.records, untuned, self._samples(selection))

    def _samples(self, selection: Selection) -> list[dict[str, Any]]:
        task = self.plan.tasks[self.task]
        checkpoints = {result.method: result.checkpoint for result in selection.finalists if result.checkpoint}
        predictions = {method: self.reader.predictions(kept.checkpoint) for method, kept in checkpoints.items()}
        return samples(task.data.splits["test"], task.type.text_columns[0], predictions)

    def _jobs_of(self, record: TrialRecord) -> list[Job]:
        if not self._is_retrained(record):
            return [self._trial_job(record)]
        return [self._retraining(record, number) for number in range(self.plan.config.selection.seeds)]

    def _answers_of(self, record: TrialRecord, reason: str) -> tuple[Mapping[int | None, Answer], str]:
        """Return the answers that count for a configuration, by retraining, and a note on what failed."""
        trial_answer = self.answers.get(self._trial_job(record).id)
        answers: Mapping[int | None, Answer] = {None: trial_answer} if trial_answer else {}
        if reason or not self._is_retrained(record):
            return answers, ""
        seeds = self.plan.config.selection.seeds
        retrainings = {number: self.answers[self._retraining(record, number).id] for number in range(seeds)}
        failed = [answer for answer in retrainings.values() if answer.status != "done"]
        note = f"{len(failed)} of {seeds} retrainings failed: {failed[0].reason}" if failed else ""
        if self._has_enough_seeds(record):
            answers = {number: answer for number, answer in retrainings.items() if answer.status == "done"}
        return answers, note

    def _is_retrained(self, record: TrialRecord) -> bool:
        return self.plan.config.selection.seeds >= MIN_SEEDS and methods.get(record.key.method).trains

    def _has_enough_seeds(self, record: TrialRecord) -> bool:
        numbers = range(self.plan.config.selection.seeds)
        done = sum(self.answers[self._retraining(record, number).id].status == "done" for number in numbers)
        return done >= MIN_SEEDS

    def _default(self, winner: str) -> TrialRecord | None:
        """Return the first trial of a trial's method, unless it is the same trial or has no result."""
        study = winner.rpartition("/")[0]
        default = next((r for r in self.records if r.key.study == study and r.key.number == 0), None)
        return default if default and str(default.key) != winner and math.isfinite(default.value) else None

    def _untuned_job(self) -> Job | None:
        """Return the job that scores the backbone as it is; ``None`` where every trial trains a head of its own.

        It is a trial before its first step, of a method that leaves the output as it is until then.
        """
        task = self.plan.tasks[self.task]
        if task.type.head_size(len(task.data.labels)):
            return None
        record = next((record for record in self.records if _starts_as_backbone(record)), None)
        return replace(self._trial_job(record), start=0, stop=0, checkpoint=None) if record else None

    def _retraining(self, record: TrialRecord, number: int) -> Job:
        job = self._trial_job(record)
        seed = trial_seed(self.plan.config.seed, record.key, number)
        return replace(job, seed=seed, start=0, checkpoint=None, retraining=number)

    def _trial_job(self, record: TrialRecord) -> Job:
        """Return the job that completes a trial from its last rung, and scores it on the test split."""
        steps = self.plan.rungs[-1]
        return Job(
            trial=record.key,
            params=dict(record.params),
            seed=trial_seed(self.plan.config.seed, record.key),
            start=record.step,
            stop=steps,
            total=steps,
            checkpoint=checkpoint_path(record.key, record.step),
            split="test",
            partial_state_every=math.ceil(steps / PARTIAL_STATE_INTERVALS),
        )


def _starts_as_backbone(record: TrialRecord) -> bool:
    """Return whether a trial is the quantized backbone before its first step; copies of original weights are not."""
    spec = methods.get(record.key.method)
    is_original = any(record.params.get(name) in values for name, values in spec.original_for.items())
    return spec.trains and spec.starts_as_identity and not (spec.needs_original or is_original)
