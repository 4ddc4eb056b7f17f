"""The names that every part of a sweep agrees on: what a trial is, what a lane is asked, what it answers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True, order=True)
class TrialKey:
    """A trial's identity: its Optuna study (``task/method``) and its number there. Never Tune's trial id."""

    study: str
    number: int

    def __str__(self) -> str:
        return f"{self.study}/{self.number}"

    @property
    def task(self) -> str:
        """The task it trains."""
        return self.study.rpartition("/")[0]

    @property
    def method(self) -> str:
        """The method it applies."""
        return self.study.rpartition("/")[2]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of ``str``."""
        study, _, number = text.rpartition("/")
        return cls(study, int(number))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work that one lane does in one go.

    Args:
        trial: whose work it is.
        params: the method's parameters, JSON values.
        seed: of everything random in the trial.
        start: optimizer steps already done.
        stop: train until this many are done.
        total: steps of the full schedule.
        checkpoint: folder to continue from, relative to the sweep's storage; ``None`` for a fresh trial.
        split: what to score at the end; ``None`` for nothing.
        retraining: which of a finalist's retrainings this is, counted from 0: it begins anew with a seed and a data
            order of its own, and is scored on validation as well; ``None`` for the trial itself.
        keep_every: after every so many steps its state is kept, and whoever does the job again goes on from there; 0
            for never.
    """

    trial: TrialKey
    params: dict[str, Any]
    seed: int
    start: int
    stop: int
    total: int
    checkpoint: str | None = None
    split: Literal["validation", "test"] | None = "validation"
    retraining: int | None = None
    keep_every: int = 0

    @property
    def name(self) -> str:
        """Whose state it goes on with: the trial's, or that of one of its retrainings."""
        return str(self.trial) if self.retraining is None else f"{self.trial}/seed-{self.retraining}"

    @property
    def id(self) -> str:
        """Unique within a sweep."""
        return f"{self.name}:{self.start}-{self.stop}:{self.split}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a lane says of a job.

    Args:
        status: ``done``; ``failed`` by the trial's own fault; ``cancelled`` on request.
        step: optimizer steps done.
        metrics: the task's metrics on the split that was asked for.
        validation: the task's metrics on validation, where a retraining was scored on test.
        checkpoint: folder that the trial continues from, relative to the sweep's storage.
        measurements: trainable parameters, bytes, seconds, peak memory and the like.
        reason: why it failed, one line.
    """

    status: Literal["done", "failed", "cancelled"]
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    measurements: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


Ending = Literal["complete", "pruned", "failed", "killed"]
"""``pruned`` was stopped by a decision, ``killed`` by an interruption."""

State = Literal["running", "paused"] | Ending


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What is known of a trial: a snapshot, never changed.

    Args:
        key: which trial.
        params: the method's parameters, JSON values.
        state: ``running``, ``paused`` at a rung, or how it ended.
        reason: why it ended, one line.
        values: the task's metric on validation, by optimizer step, in the order of the steps.
        lane_seconds: lane time spent on it.
        measurements: sizes and times as of its last report.
    """

    key: TrialKey
    params: Mapping[str, Any]
    state: State = "running"
    reason: str = ""
    values: Mapping[int, float] = field(default_factory=dict)
    lane_seconds: float = 0.0
    measurements: Mapping[str, float] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The last step with a value; 0 before the first."""
        return max(self.values, default=0)

    @property
    def value(self) -> float:
        """The last value; NaN before the first."""
        return self.values.get(self.step, math.nan)

    def rank(self, *, higher_is_better: bool) -> tuple[int, float]:
        """Sorts trials from worse to better: a later rung counts before a better value."""
        if not math.isfinite(self.value):
            return (0, -math.inf)
        return (self.step, self.value if higher_is_better else -self.value)


def lane_seconds(measurements: Mapping[str, float]) -> float:
    """Lane time that a trial has cost since it began: all of it, in whichever lanes."""
    return sum(measurements.get(f"{kind}_seconds", 0.0) for kind in ("attach", "train", "evaluation"))


def trial_seed(seed: int, trial: TrialKey, retraining: int | None = None) -> int:
    """A trial's own seed, or that of one of its retrainings; the same in every run of the same sweep."""
    name = str(trial) if retraining is None else f"{trial}/seed-{retraining}"
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def checkpoint_path(trial: TrialKey, step: int, retraining: int | None = None) -> str:
    """Where a trial's state after so many steps is kept, relative to the sweep's folder.

    What names of methods have in them and paths had better not is exchanged for what they do not have.
    """
    name = str(trial) if retraining is None else f"{trial}/seed-{retraining}"
    return _path(f"{name}/step-{step}")


def partial_state_path(job: Job) -> str:
    """Where a job's own state is kept while it is under way, relative to the sweep's folder."""
    return _path(f"{job.name}/under-way")


def _path(name: str) -> str:
    return f"checkpoints/{name}".translate(str.maketrans(":+=", ".-~"))
