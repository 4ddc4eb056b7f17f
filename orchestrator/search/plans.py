"""What the Search core is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.common.trial_types import TrialKey
from search_spaces._base import SearchSpace


class EventLog(Protocol):
    """Where events go before anything else learns of them: the sweep journal."""

    def append(self, event: str, **fields: Any) -> None:
        """Write one event."""


class Decision(StrEnum):
    """What becomes of a trial after a result."""

    CONTINUE = "continue"
    PAUSE = "pause"
    """Its lane is free; the trial is kept, and :meth:`orchestrator.search.core.Search.ask` may bring it back."""
    STOP = "stop"


@dataclass(frozen=True)
class StepCost:
    """Models the cost of an optimizer step, in passes of a row through the bare backbone.

    Args:
        passes: what a row of the method costs.
    """

    passes: float = 1.0

    def __call__(self, params: Mapping[str, Any]) -> float:
        """The cost of a step of this configuration."""
        return self.passes * float(params.get("batch_size", 1))


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One method on one task.

    Args:
        study: ``task/method``.
        space: where to look.
        higher_is_better: the direction of the task's metric.
        step_cost: what an optimizer step of a configuration costs, in any unit that all studies share. It is modelled
            and never measured, so that a sweep can be repeated.
        prior: configurations that did well in earlier sweeps, tried after the default.
        constraints: of a configuration, what is known before training; satisfied where every value is at most 0.
    """

    study: str
    space: SearchSpace
    higher_is_better: bool
    step_cost: Callable[[Mapping[str, Any]], float] = StepCost()
    prior: tuple[Mapping[str, Any], ...] = ()
    constraints: Callable[[Mapping[str, Any]], tuple[float, ...]] | None = None

    @property
    def task(self) -> str:
        """The task."""
        return self.study.rpartition("/")[0]


@dataclass(frozen=True)
class Proposal:
    """A trial to start, or one to go on with.

    Args:
        key: which trial it is.
        params: the method's parameters, JSON values.
        seed: the same for all trials of a sweep, so that they see the same rows in the same order.
        start: optimizer steps done; above 0 it goes on from its checkpoint there.
    """

    key: TrialKey
    params: dict[str, Any]
    seed: int
    start: int = 0
