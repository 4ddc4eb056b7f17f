"""The best trial of each method on validation, from which the final's methods are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialRecord


@dataclass(frozen=True)
class BestTrials:
    """The best trials of a task.

    Args:
        by_method: best trial of each method, best method first; methods without a result are missing.
    """

    by_method: Mapping[str, TrialRecord]

    @property
    def leader(self) -> TrialRecord:
        """The best trial of all methods."""
        return next(iter(self.by_method.values()))


def best_trials(records: Iterable[TrialRecord], metrics: Mapping[str, Metric]) -> dict[str, BestTrials]:
    """Return the best trials of each task.

    Trials are ordered by the rung they reached and then by their value there: a score half-way down a
    learning-rate schedule is not a final score. Equal trials keep the order of their start.

    Args:
        records: all trials. Those that failed, were killed, or diverged cannot win.
        metrics: metric of each task.

    Returns:
        Best trials by task; a task without a result is missing.
    """
    by_task: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.state in ("complete", "pruned") and math.isfinite(record.value):
            by_task.setdefault(record.key.task, []).append(record)
    return {task: _best_by_method(trials, metrics[task]) for task, trials in by_task.items()}


def _best_by_method(trials: list[TrialRecord], metric: Metric) -> BestTrials:
    ordered = sorted(trials, key=lambda trial: trial.rank(higher_is_better=metric.higher_is_better), reverse=True)
    by_method: dict[str, TrialRecord] = {}
    for trial in ordered:
        by_method.setdefault(trial.key.method, trial)
    return BestTrials(by_method)
