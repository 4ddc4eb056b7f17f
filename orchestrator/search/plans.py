"""The search's interface: the studies that it is given, and the proposals and decisions that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.common.trial_types import TrialKey
from search_spaces._base import SearchSpace


class EventLog(Protocol):
    """Stores every event before it takes effect; on disk, that is ``orchestrator.journal.events.Journal``."""

    def append(self, event: str, **fields: Any) -> None:
        """Write one event."""


class Decision(StrEnum):
    """What happens to a trial after a result."""

    CONTINUE = "continue"
    PAUSE = "pause"
    """Its lane is free; the trial waits, and :meth:`orchestrator.search.core.Search.ask` may continue it."""
    STOP = "stop"


@dataclass(frozen=True)
class RelativeStepCost:
    """Models the cost of an optimizer step, in passes of a row through the bare backbone.

    Args:
        passes: The cost of a row of the method, in such passes.
    """

    passes: float = 1.0

    def __call__(self, params: Mapping[str, Any]) -> float:
        """Return the cost of a step of this configuration."""
        return self.passes * float(params.get("batch_size", 1))


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One method on one task.

    Args:
        study: ``task/method``.
        space: The search space.
        higher_is_better: The direction of the task's metric.
        step_cost: The cost of an optimizer step of a configuration, in any unit that all studies share. It is modelled
            and never measured, so that a sweep can be repeated.
        prior: Configurations that did well in earlier sweeps, tried after the default.
        constraints: By how much a configuration exceeds each constraint, known before training; at most 0 where it
            does not.
        metric: The name of the task's metric, for Optuna's tools.
    """

    study: str
    space: SearchSpace
    higher_is_better: bool
    step_cost: Callable[[Mapping[str, Any]], float] = RelativeStepCost()
    prior: tuple[Mapping[str, Any], ...] = ()
    constraints: Callable[[Mapping[str, Any]], tuple[float, ...]] | None = None
    metric: str = ""

    @property
    def task(self) -> str:
        """The task's name."""
        return self.study.rpartition("/")[0]


@dataclass(frozen=True)
class Proposal:
    """A trial to start or to continue.

    Args:
        key: The trial.
        params: The method's parameters, JSON values.
        seed: The sweep's seed, from which each trial's own seed is derived; the order of the rows depends on it alone.
        start: Optimizer steps done so far; above 0 the trial continues from its checkpoint there.
    """

    key: TrialKey
    params: dict[str, Any]
    seed: int
    start: int = 0
