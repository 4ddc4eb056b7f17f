"""From what lanes answered in the final to the winner of a task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial

import pyarrow as pa

import methods
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, TrialRecord
from orchestrator.final.candidates import Candidate, median_measurements, read_predictions
from orchestrator.final.results import Finalist, Role, Scored, TaskOutcome
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.best import Rank, ranks
from orchestrator.selection.claims import claims
from orchestrator.selection.evidence import Arm, Evidence, gather
from orchestrator.selection.intervals import Statistic, bootstrap_interval
from orchestrator.selection.recommend import choose, pareto
from orchestrator.selection.selection import Entry, Selection


class Judge:
    """Weighs one task's candidates.

    Args:
        plan: of the sweep.
        task: its name.
        candidates: the finalists, at least one of them scored, and the others.
        storage: the sweep's folder, where predictions are.
    """

    def __init__(self, plan: SweepPlan, task: str, candidates: Sequence[Candidate], storage: Storage) -> None:
        self._plan, self._task, self._storage = plan, plan.tasks[task], storage
        self._name, self.metric = task, self._task.data.config.metric
        self.higher_is_better = self._task.type.metric(self.metric).higher_is_better
        self._failed = {one.method: one.failure for one in candidates if not one.scored}
        there = [one for one in candidates if one.scored]
        # Finalists first, each part by its score, as the evidence is laid out.
        self._candidates = sorted(there, key=lambda one: (bool(one.reason), self._badness(one)))
        self._finalists = [one for one in self._candidates if not one.reason]
        self._runs = {one.method: self._scored(one) for one in self._candidates}

    @property
    def winner(self) -> TrialRecord:
        """The recommended method's trial."""
        return next(one.record for one in self._candidates if one.method == self.selection.recommended)

    @cached_property
    def selection(self) -> Selection:
        """Which method, how sure, and why."""
        config, entries = self._plan.config, self._entries()
        choice = choose(entries, config.selection.prefer, higher_is_better=self.higher_is_better)
        recommended = next(one for one in entries if one.method == choice.method)
        tied = [one.method for one in entries if one.tied and one is not recommended]
        leading = self._ranks[self._finalist_number(recommended.method)]
        return Selection(
            task=self._name,
            metric=self.metric,
            higher_is_better=self.higher_is_better,
            prefer=config.selection.prefer,
            rows=self._evidence.rows,
            seeds=config.selection.seeds,
            recommended=choice.method,
            trial=recommended.trial,
            reason=choice.reason,
            alternative=choice.alternative,
            tied=(choice.method, *tied),
            minimum_detectable_difference=leading.minimum_detectable_difference,
            finalists=tuple(entries[: len(self._finalists)]),
            others=tuple(entries[len(self._finalists) :]),
            failed=self._failed,
            claims=claims(
                entries,
                self._evidence,
                metric=self.metric,
                higher_is_better=self.higher_is_better,
                parameters=self._plan.parameters,
            ),
            evidence=self._evidence.to_dict(),
        )

    def outcome(self, records: tuple[TrialRecord, ...], default: tuple[TrialRecord, Answer] | None) -> TaskOutcome:
        """What was found.

        Args:
            records: all the task's trials.
            default: the winner's method untuned, where that was scored.
        """
        selection = self.selection
        by_method = {one.method: one.record for one in self._candidates}
        order = sorted(selection.scored, key=lambda e: (e.method != selection.recommended, self._sign * -e.score))
        found = [self._finalist(entry, by_method[entry.method]) for entry in order]
        if default and default[1].status == "done" and default[1].checkpoint:
            found.append(self._untuned(*default))
        return TaskOutcome(self._task, found, records, selection)

    @property
    def _sign(self) -> int:
        return 1 if self.higher_is_better else -1

    def _badness(self, one: Candidate) -> float:
        return -self._sign * statistics.mean(answer.metrics[self.metric] for answer in one.scored.values())

    @cached_property
    def _predictions(self) -> dict[str, list[pa.Table]]:
        return {
            one.method: [read_predictions(self._storage, answer.checkpoint or "") for answer in one.scored.values()]
            for one in self._candidates
        }

    @cached_property
    def _evidence(self) -> Evidence:
        """Over all candidates, in their order."""
        arms = [
            Arm(
                tuple(run.score for run in self._runs[one.method]),
                tuple(self._statistic(table) for table in self._predictions[one.method]),
                methods.get(one.method).trains,
            )
            for one in self._candidates
        ]
        rows = self._predictions[self._candidates[0].method][0].num_rows
        return gather(arms, rows, seed=self._plan.config.seed)

    @cached_property
    def _ranks(self) -> list[Rank]:
        """Of the finalists among themselves."""
        alone = self._evidence.of(range(len(self._finalists)))
        return ranks(alone, higher_is_better=self.higher_is_better, seed=self._plan.config.seed)

    def _finalist_number(self, method: str) -> int:
        return next(number for number, one in enumerate(self._finalists) if one.method == method)

    def _statistic(self, predictions: pa.Table) -> Statistic:
        return partial(self._task.type.score_many, self.metric, predictions)

    def _entries(self) -> list[Entry]:
        entries = [self._entry(number, one) for number, one in enumerate(self._candidates)]
        front = pareto(entries, higher_is_better=self.higher_is_better)
        return [replace(one, pareto=one.method in front) for one in entries]

    def _entry(self, number: int, one: Candidate) -> Entry:
        runs = self._runs[one.method]
        rank = self._ranks[number] if number < len(self._finalists) else None
        return Entry(
            method=one.method,
            trial=str(one.record.key),
            score=statistics.mean(run.score for run in runs),
            interval=self._interval(number),
            scores=tuple(run.score for run in runs),
            validation=one.record.value,
            measurements=median_measurements(runs),
            gap=rank.gap if rank and not rank.tied else None,
            tied=bool(rank and rank.tied),
            reason=one.reason,
            note=one.note,
        )

    def _interval(self, number: int) -> tuple[float, float]:
        """Over rows and seeds; over rows alone for a single score."""
        runs = self._runs[self._candidates[number].method]
        if len(runs) == 1:
            return runs[0].interval
        return self._evidence.interval(number, bounds=(0.0, 1.0 if self.higher_is_better else float("inf")))

    def _finalist(self, entry: Entry, record: TrialRecord) -> Finalist:
        runs = self._runs[entry.method]
        kept = max(runs, key=lambda run: self._sign * run.validation)
        role: Role = "champion" if entry.method == self.selection.recommended else "best"
        return Finalist(
            record=record,
            role=role,
            score=entry.score,
            interval=entry.interval,
            metrics=kept.metrics,
            measurements=dict(entry.measurements),
            checkpoint=kept.checkpoint,
            step=kept.step,
            own_score=kept.score,
            scored=tuple(runs),
            tied=entry.tied,
        )

    def _untuned(self, record: TrialRecord, answer: Answer) -> Finalist:
        run = self._run(None, answer, record, read_predictions(self._storage, answer.checkpoint or ""))
        return Finalist(
            record=record,
            role="default",
            score=run.score,
            interval=run.interval,
            metrics=run.metrics,
            measurements=run.measurements,
            checkpoint=run.checkpoint,
            step=run.step,
            own_score=run.score,
            scored=(run,),
        )

    def _scored(self, one: Candidate) -> list[Scored]:
        answers = zip(one.scored.items(), self._predictions[one.method], strict=True)
        return [self._run(seed, answer, one.record, table) for (seed, answer), table in answers]

    def _run(self, seed: int | None, answer: Answer, record: TrialRecord, predictions: pa.Table) -> Scored:
        statistic = self._statistic(predictions)
        return Scored(
            seed=seed,
            score=answer.metrics[self.metric],
            interval=bootstrap_interval(statistic, predictions.num_rows, seed=self._plan.config.seed),
            validation=record.value if seed is None else answer.validation.get(self.metric, float("nan")),
            metrics=answer.metrics,
            measurements=answer.measurements,
            checkpoint=answer.checkpoint or "",
            step=answer.step,
        )
