"""The plain types of a trial: its key, the jobs that lanes get, their answers, and its record in the search."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True, order=True)
class TrialKey:
    """The identity of a trial. Tune's own trial ids are not used: they change when a sweep is resumed.

    Args:
        study: its Optuna study, ``task/method``.
        number: its number in that study.
    """

    study: str
    number: int

    def __str__(self) -> str:
        return f"{self.study}/{self.number}"

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.study.rpartition("/")[0]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.study.rpartition("/")[2]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key of a text such as ``mail/lora/12``, which ``str`` makes."""
        study, _, number = text.rpartition("/")
        return cls(study, int(number))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A unit of work for one lane: train a trial from one step to another, then score it.

    Args:
        trial: the trial to train.
        params: the method's hyperparameters, JSON values.
        seed: seed of everything random in the trial.
        start: optimizer steps that are done already.
        stop: optimizer steps that are done at the end of the job.
        total: optimizer steps of the full schedule.
        checkpoint: folder to continue from, relative to the sweep's storage; ``None`` for a new trial.
        split: split to score at the end; ``None`` for none.
        retraining: index from 0 of a finalist's retraining, which starts anew with its own seed and data order, and is
            scored on validation as well; ``None`` for the trial itself.
        partial_state_every: optimizer steps between two saves of the job's partial state, from which another lane
            continues the job if its lane dies; 0 for no saves.
        has_partial_state: whether a lane that had to leave has saved the job's partial state.
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
    partial_state_every: int = 0
    has_partial_state: bool = False

    @property
    def name(self) -> str:
        """Name of the training that the job continues: the trial itself, or one of its retrainings."""
        return str(self.trial) if self.retraining is None else f"{self.trial}/seed-{self.retraining}"

    @property
    def id(self) -> str:
        """Identifier that is unique within a sweep."""
        return f"{self.name}:{self.start}-{self.stop}:{self.split}"


Curve = dict[str, list[float | None]]
"""Points of a training curve: a list of the same length per quantity, one of them the optimizer step; ``None`` where a
quantity was not measured."""


Status = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A lane's result for a job.

    Args:
        status: ``done``; ``failed`` because of the trial itself; ``cancelled`` on request.
        step: optimizer steps that are done.
        metrics: the task's metrics on the job's split, by name.
        validation: the task's metrics on the validation split, for a retraining that was scored on the test split.
        checkpoint: folder that the trial continues from, relative to the sweep's storage.
        measurements: trainable parameters, bytes, seconds, peak memory and the like, by name with unit.
        curve: points of the trial's training curve during the job; empty for a retraining.
        reason: why the job failed, one line.
    """

    status: Status
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    measurements: dict[str, float] = field(default_factory=dict)
    curve: Curve = field(default_factory=dict)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


Ending = Literal["complete", "pruned", "failed", "killed"]
"""``pruned``: stopped by a decision of the search. ``killed``: stopped by an interruption."""

State = Literal["running", "paused"] | Ending


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """An immutable snapshot of a trial.

    Args:
        key: the trial's identity.
        params: the method's hyperparameters, JSON values.
        state: ``running``, ``paused`` at a rung, or how it ended.
        reason: why it ended, one line.
        values: the task's metric on the validation split by optimizer step, in ascending order of steps.
        lane_seconds: lane time that was spent on the trial, in seconds.
        measurements: measurements of its last report, by name with unit.
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
        """Last optimizer step with a value; 0 before the first."""
        return max(self.values, default=0)

    @property
    def value(self) -> float:
        """Value at the last step; NaN before the first."""
        return self.values.get(self.step, math.nan)

    def rank(self, *, higher_is_better: bool) -> tuple[int, float]:
        """Return a sort key that orders trials from worse to better: first by rung, then by value.

        A value that is not finite ranks below every other, since the trial diverged.

        Args:
            higher_is_better: whether a higher value is better.
        """
        if not math.isfinite(self.value):
            return (0, -math.inf)
        return (self.step, self.value if higher_is_better else -self.value)


def lane_seconds(measurements: Mapping[str, float]) -> float:
    """Return the lane time of a trial since it started, in seconds: attaching, training and evaluating in all lanes."""
    return sum(measurements.get(f"{kind}_seconds", 0.0) for kind in ("attach", "train", "evaluation"))


def trial_seed(seed: int, trial: TrialKey, retraining: int | None = None) -> int:
    """Return the seed of a trial or of one of its retrainings; the same in every run of the same sweep.

    Args:
        seed: the configuration's seed.
        trial: the trial's identity.
        retraining: index of the retraining; ``None`` for the trial itself.
    """
    name = str(trial) if retraining is None else f"{trial}/seed-{retraining}"
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def checkpoint_path(trial: TrialKey, step: int, retraining: int | None = None) -> str:
    """Return the folder of a checkpoint, relative to the sweep's folder.

    Characters of method names that are troublesome in paths and URIs (``:+=``) are replaced by characters that method
    names never contain.

    Args:
        trial: the trial's identity.
        step: optimizer steps that are done.
        retraining: index of the retraining; ``None`` for the trial itself.
    """
    name = str(trial) if retraining is None else f"{trial}/seed-{retraining}"
    return _path(f"{name}/step-{step}")


def partial_state_path(job: Job) -> str:
    """Return the folder of a job's partial state, saved before the job's end, relative to the sweep's folder."""
    return partial_state_folder(job.name)


def partial_state_folder(name: str) -> str:
    """Return the folder of the partial states of a trial or a retraining, by ``Job.name``."""
    return _path(f"{name}/under-way")  # named so by release 0.1, whose interrupted sweeps are resumed


def trial_folder(trial: TrialKey) -> str:
    """Return the folder of all that is stored of a trial, relative to the sweep's folder."""
    return _path(str(trial))


def _path(name: str) -> str:
    return f"checkpoints/{name}".translate(str.maketrans(":+=", ".-~"))
