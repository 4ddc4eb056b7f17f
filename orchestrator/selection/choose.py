"""Who goes into the final: the best trial of each method, and the best of all, on validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.common.trial_types import TrialRecord


@dataclass(frozen=True)
class Finalists:
    """A task's best trials.

    Args:
        by_method: each method's best trial, best method first; methods without any result are missing.
    """

    by_method: Mapping[str, TrialRecord]

    @property
    def champion(self) -> TrialRecord:
        """The best of all."""
        return next(iter(self.by_method.values()))


def finalists(records: Iterable[TrialRecord], *, higher_is_better: Mapping[str, bool]) -> dict[str, Finalists]:
    """Each task's finalists.

    Trials are ordered by the rung they reached and then by their value there: a score half-way down a
    learning-rate schedule is not a final score. Equal trials stand in the order they started.

    Args:
        records: all trials. Those that failed, were killed, or diverged cannot win.
        higher_is_better: the metric's direction, by task.

    Returns:
        By task; a task without any result is missing.
    """
    tasks: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.state in ("complete", "pruned") and math.isfinite(record.value):
            tasks.setdefault(record.key.task, []).append(record)
    return {task: _finalists(found, higher_is_better=higher_is_better[task]) for task, found in tasks.items()}


def _finalists(records: list[TrialRecord], *, higher_is_better: bool) -> Finalists:
    ranked = sorted(records, key=lambda r: r.rank(higher_is_better=higher_is_better), reverse=True)
    by_method: dict[str, TrialRecord] = {}
    for record in ranked:
        by_method.setdefault(record.key.method, record)
    return Finalists(by_method)
