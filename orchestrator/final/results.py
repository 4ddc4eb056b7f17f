"""What a sweep found: who was scored on the test split, how often, and with what result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from orchestrator.common.trial_types import TrialRecord
from orchestrator.planning.plan import TaskPlan
from orchestrator.selection.selection import Selection
from orchestrator.tracking.registry import Registered

Role = Literal["champion", "best", "default"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One checkpoint's one look at the test split.

    Args:
        seed: which retraining, counted from 0; ``None`` for the trial's own checkpoint.
        score: the task's metric.
        interval: 95 %, bootstrap over rows; it knows nothing of other seeds.
        validation: the same metric on validation.
        metrics: all metrics on the test split.
        measurements: trainable parameters, bytes, seconds and the like.
        checkpoint: its folder, relative to the sweep's.
        step: optimizer steps that it was trained for.
    """

    seed: int | None
    score: float
    interval: tuple[float, float]
    validation: float
    metrics: dict[str, float]
    measurements: dict[str, float]
    checkpoint: str
    step: int = 0


@dataclass(frozen=True)
class Finalist:
    """A method's best configuration on the test split.

    The method's score is the mean over its retrainings. What is kept of it, registered and reproduced, is one
    checkpoint: that of the retraining with the best score on *validation*, so that choosing it does not flatter the
    score on test.

    Args:
        record: the trial.
        role: ``champion``, who is recommended; ``best`` of its method; ``default``, the champion's method untuned.
        score: mean over the seeds.
        interval: 95 %, over rows and seeds; over rows alone where there is one score.
        metrics: of the kept checkpoint on the test split.
        measurements: medians over the seeds, and ``seed_spread``, the standard deviation of their scores.
        checkpoint: the kept one's folder, relative to the sweep's.
        step: optimizer steps that it was trained for.
        own_score: the kept checkpoint's alone.
        scored: every checkpoint that was scored, in the order of the seeds.
        tied: it may be the best.
    """

    record: TrialRecord
    role: Role
    score: float
    interval: tuple[float, float]
    metrics: dict[str, float]
    measurements: dict[str, float]
    checkpoint: str
    step: int = 0
    own_score: float = 0.0
    scored: tuple[Scored, ...] = ()
    tied: bool = False


@dataclass
class TaskOutcome:
    """What a sweep found for one task.

    Args:
        plan: the task.
        finalists: the champion first, then the best of the other methods by their scores on test.
        records: all the task's trials.
        selection: which method, how sure, and why.
        registered: name, version and alias in the registry, once the champion is there.
        unregistered: why it is not.
        notes: what else went wrong after the selection, a line each.
    """

    plan: TaskPlan
    finalists: list[Finalist]
    records: tuple[TrialRecord, ...]
    selection: Selection
    registered: Registered | None = None
    unregistered: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def champion(self) -> Finalist:
        """Who is recommended."""
        return self.finalists[0]

    @property
    def tied(self) -> list[Finalist]:
        """Who may be the best, the champion first."""
        return [one for one in self.finalists if one.tied and one.role != "default"]

    def trials_of(self, method: str) -> int:
        """How many trials a method had."""
        return sum(record.key.method == method for record in self.records)
