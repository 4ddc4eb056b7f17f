"""How a sweep stands while it runs, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.common.trial_types import TrialRecord

if TYPE_CHECKING:
    from orchestrator.final.results import TaskOutcome
    from orchestrator.lanes.broker import LaneStatus


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How a sweep stands, for a display.

    Args:
        phase: what it is doing, a few words.
        elapsed: seconds that it has been running, in earlier lives too.
        trials: every trial so far.
        lanes: what each lane said last.
        expected_lanes: how many there will be.
        lane_seconds: spent so far.
    """

    phase: str
    elapsed: float
    trials: tuple[TrialRecord, ...] = ()
    lanes: dict[int, LaneStatus] = field(default_factory=dict)
    expected_lanes: int = 0
    lane_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended.

    Args:
        sweep: its name.
        folder: where its journal, checkpoints and log are.
        reason: ``finished``, ``budget`` or ``interrupted``.
        tasks: what was found, by task; empty after an interruption.
        trials: every trial.
        wall_seconds: that it ran, in earlier lives too.
        unexported: events of the journal that MLflow has not taken.
        lanes: what each lane said last.
    """

    sweep: str
    folder: Path
    reason: str
    tasks: dict[str, TaskOutcome]
    trials: tuple[TrialRecord, ...]
    wall_seconds: float
    lanes: dict[int, LaneStatus] = field(default_factory=dict)
    unexported: int = 0


Watch = Callable[[Snapshot], None]
