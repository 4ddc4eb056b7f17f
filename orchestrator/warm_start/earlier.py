"""A task of an earlier sweep, and its trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.warm_start.task_metadata import TaskMetadata

ENDED_STATES = frozenset({"complete", "pruned", "failed"})


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A trial of an earlier sweep.

    Args:
        trial: ``task/method/number``.
        method: The method's name.
        params: The trial's parameters; texts if they come from MLflow.
        state: How it ended.
        value: Its last score on validation.
    """

    trial: str
    method: str
    params: Mapping[str, Any]
    state: str
    value: float = math.nan


@dataclass(frozen=True, kw_only=True)
class EarlierTask:
    """A task of an earlier sweep.

    Args:
        sweep: The sweep's name.
        task: The task's name.
        task_metadata: Metadata of the task and its backbone.
        higher_is_better: The direction of its metric.
        read: Reads its trials; called only if they are used.
    """

    sweep: str
    task: str
    task_metadata: TaskMetadata
    higher_is_better: bool
    read: Callable[[], Sequence[EarlierTrial]]

    @property
    def name(self) -> str:
        """``sweep/task``."""
        return f"{self.sweep}/{self.task}"


@dataclass(frozen=True)
class RankedTrial:
    """A trial and its rank among those of its method.

    Args:
        trial: The trial.
        rank: The expected share of configurations that it beats, in 0..1.
    """

    trial: EarlierTrial
    rank: float


def better_half(trials: Sequence[EarlierTrial], method: str, *, higher_is_better: bool) -> list[RankedTrial]:
    """Return the complete trials of a method that are in its better half, the best first.

    The best of ``n`` draws beats a share of ``n / (n + 1)`` of all configurations on average, the next
    ``(n - 1) / (n + 1)`` and so on. So the best of twelve counts more than the best of two, and scores, which have
    another scale on every task, are not needed. Trials that were pruned or failed count as beaten.

    Args:
        trials: Trials of one task, of any method.
        method: The method's name.
        higher_is_better: The direction of the metric.
    """
    ended = [trial for trial in trials if trial.method == method and trial.state in ENDED_STATES]
    complete = [trial for trial in ended if trial.state == "complete" and math.isfinite(trial.value)]
    complete.sort(key=lambda trial: (-trial.value if higher_is_better else trial.value, trial.trial))
    count = len(ended)
    ranked = [RankedTrial(trial, (count - index) / (count + 1)) for index, trial in enumerate(complete)]
    return [entry for entry in ranked if entry.rank >= 0.5]
