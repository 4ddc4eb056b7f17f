"""What the Search core is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.search.rungs import promotes
from orchestrator.trials import TrialKey
from search_spaces._base import SearchSpace


class EventLog(Protocol):
    """Where events go before anything else learns of them: the sweep journal."""

    def append(self, event: str, **fields: Any) -> None:
        """Write one event."""


class Decision(StrEnum):
    """What becomes of a trial after a result."""

    CONTINUE = "continue"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One method on one task.

    Args:
        study: ``task/method``.
        space: where to look.
        higher_is_better: the direction of the task's metric.
    """

    study: str
    space: SearchSpace
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Halving:
    """When trials are stopped.

    Args:
        reduction_factor: the best ``1 / reduction_factor`` at a rung go on.
        min_results: a rung with fewer results than this stops nobody.
    """

    reduction_factor: float = 2.0
    min_results: int = 4

    def promotes(self, value: float, results_at_rung: Sequence[float], *, higher_is_better: bool) -> bool:
        """Whether a trial goes on; see :func:`orchestrator.search.rungs.promotes`."""
        return promotes(
            value, results_at_rung, self.reduction_factor, self.min_results, higher_is_better=higher_is_better
        )


@dataclass(frozen=True)
class Proposal:
    """A trial to start.

    Args:
        key: which trial it is.
        params: the method's parameters, JSON values.
        seed: the same for all trials of a sweep, so that they see the same rows in the same order.
    """

    key: TrialKey
    params: dict[str, Any]
    seed: int
