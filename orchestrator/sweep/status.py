"""The status of a running sweep, and the outcome of one that has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.common.trial_types import TrialRecord

if TYPE_CHECKING:
    from orchestrator.final.progress import FinalStatus
    from orchestrator.final.results import TaskOutcome
    from orchestrator.lanes.broker import LaneStatus


class Phase(StrEnum):
    """What a sweep is doing, as the display shows it."""

    PREPARING = "tokenizing and quantizing"
    WAITING_FOR_LANES = "waiting for lanes"
    SEARCHING = "searching"
    FINAL = "retraining finalists and scoring them on the test split"
    REGISTERING = "registering"
    STOPPING = "stopping after the current step"
    SHUTTING_DOWN = "shutting down lanes"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The status of a sweep at one moment.

    Args:
        phase: what the sweep is doing.
        elapsed: wall time of all attempts so far, in seconds.
        trials: records of all trials so far.
        lanes: last status of each lane that has started, by lane.
        expected_lanes: number of lanes that the sweep asked for.
        lane_seconds: lane time of all trials so far, in seconds.
        drained_nodes: nodes that were taken back with notice since the driver started.
        moved_jobs: jobs that their lanes handed back and other lanes went on with.
        final: status of the final; ``None`` in other phases.
        waiting: what it waits for and until when; empty while it works.
    """

    phase: Phase
    elapsed: float
    trials: tuple[TrialRecord, ...] = ()
    lanes: dict[int, LaneStatus] = field(default_factory=dict)
    expected_lanes: int = 0
    lane_seconds: float = 0.0
    drained_nodes: int = 0
    moved_jobs: int = 0
    final: FinalStatus | None = None
    waiting: str = ""

    @property
    def doing(self) -> str:
        """The phase, and what it waits for."""
        return f"{self.phase}: {self.waiting}" if self.waiting else self.phase


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a sweep.

    Args:
        sweep: the sweep's name.
        folder: folder of its journal, checkpoints and log.
        reason: ``finished``, ``budget`` or ``interrupted``.
        tasks: outcome of the final and the registration, by task; empty after an interruption.
        trials: records of all trials.
        wall_seconds: wall time of all attempts, in seconds.
        unexported: number of the journal's events that are not in MLflow.
        experiment: id of its experiment in MLflow; empty where nothing was written.
        lanes: last status of each lane, by lane.
        next_trials: how many of some further trials would go to each study, if the sweep were extended.
    """

    sweep: str
    folder: Path
    reason: str
    tasks: dict[str, TaskOutcome]
    trials: tuple[TrialRecord, ...]
    wall_seconds: float
    lanes: dict[int, LaneStatus] = field(default_factory=dict)
    unexported: int = 0
    experiment: str = ""
    next_trials: Mapping[str, int] = field(default_factory=dict)


Watch = Callable[[Snapshot], None]
"""Function that receives a sweep's status twice a second."""
