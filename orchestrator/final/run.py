"""The final: the methods that passed the screening are retrained with fresh seeds, and scored once on the test split.

The screening uses validation alone. The best configuration of each finalist is retrained at full length, each seed
with an initialization, dropout and data order of its own; the best trial of each eliminated method is scored as it is,
so that its position can be shown. All of that runs at once over all lanes.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.common.errors import SweepError
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialRecord
from orchestrator.final.results import TaskOutcome
from orchestrator.final.retrain import FIRST_LOOK, Look, RunJobs, TaskFinal
from orchestrator.planning.plan import SweepPlan
from orchestrator.search.plans import EventLog
from orchestrator.selection.best_trials import best_trials
from orchestrator.selection.overall import overall


def run_final(
    plan: SweepPlan,
    records: tuple[TrialRecord, ...],
    run: RunJobs,
    storage: Storage,
    journal: EventLog,
    look: Look = FIRST_LOOK,
) -> dict[str, TaskOutcome]:
    """Train and score every task's finalists, on all lanes at once, and choose the methods.

    Args:
        plan: plan of the sweep.
        records: all trials; the screening decides by their validation scores alone.
        run: function that runs jobs, as many at once as there are lanes, and returns the answers in their order.
        storage: storage of the sweep's folder.
        journal: receives a ``test`` event for each checkpoint, a ``selection`` for each task, ``samples`` where
            text is generated, and, where there are several tasks, a ``selection_overall``.
        look: which look at the test split it is.

    Raises:
        SweepError: if no trial of a task has a result, or no finalist of a task can be scored.
    """
    metrics = {name: task.type.optimized for name, task in plan.tasks.items()}
    best = best_trials(records, metrics)
    if missing := [name for name in plan.tasks if name not in best]:
        raise SweepError(f"no trial of task {missing[0]} came to a result{_first_reason(records, missing[0])}")
    finals = [TaskFinal(plan, name, best[name], records, storage, look) for name in plan.tasks]
    _run_jobs(run, finals, [job for final in finals for job in final.first_jobs()])
    _run_jobs(run, finals, [job for final in finals for job in final.second_jobs()])
    selections = [final.select() for final in finals]
    late = [final.default_jobs(selection.trial) for final, selection in zip(finals, selections, strict=True)]
    _run_jobs(run, finals, [job for jobs in late for job in jobs])
    outcomes = {final.task: final.outcome(selection) for final, selection in zip(finals, selections, strict=True)}
    for outcome in outcomes.values():
        _record(journal, outcome)
    if len(outcomes) > 1:
        journal.append("selection_overall", **overall(selections).to_dict())
    return outcomes


def _run_jobs(run: RunJobs, finals: Iterable[TaskFinal], jobs: list[Job]) -> None:
    """Run jobs, if there are any, and add the answers to all finals."""
    answers = dict(zip((job.id for job in jobs), run(jobs), strict=True)) if jobs else {}
    for final in finals:
        final.answers.update(answers)


def _record(journal: EventLog, outcome: TaskOutcome) -> None:
    """Write every score on the test split, the kept checkpoint of a method last; then the selection."""
    for role, result in outcome.results():
        for seed in sorted(result.seeds, key=lambda seed: seed is result.checkpoint):
            journal.append(
                "test",
                trial=result.trial,
                role=role if seed is result.checkpoint else "seed",
                seed=seed.seed,
                step=seed.step,
                checkpoint_score=seed.checkpoint_score,
                interval=list(seed.interval),
                validation=seed.validation,
                metrics=seed.metrics,
                measurements=seed.measurements,
            )
    journal.append("selection", **outcome.selection.to_dict())
    if outcome.samples:
        journal.append("samples", task=outcome.selection.task, samples=list(outcome.samples))


def _first_reason(records: tuple[TrialRecord, ...], task: str) -> str:
    reasons = [f"{r.key}: {r.reason}" for r in records if r.key.task == task and r.reason]
    return f"; {reasons[0]}" if reasons else ""
