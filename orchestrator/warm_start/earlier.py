"""An earlier sweep's task: what it was, and what came of its trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.warm_start.task_metadata import TaskMetadata

ENDED = frozenset({"complete", "pruned", "failed"})


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trial of an earlier sweep.

    Args:
        trial: ``task/method/number``.
        method: what it trained.
        params: its parameters; from MLflow as texts.
        state: how it ended.
        value: its last score on validation.
    """

    trial: str
    method: str
    params: Mapping[str, Any]
    state: str
    value: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """One task of an earlier sweep.

    Args:
        sweep: its name.
        task: the task's.
        task_metadata: what is known of both.
        higher_is_better: the direction of its metric.
        read: brings its trials; called only for those that are used.
    """

    sweep: str
    task: str
    task_metadata: TaskMetadata
    higher_is_better: bool
    read: Callable[[], Sequence[Tried]]

    @property
    def name(self) -> str:
        """``sweep/task``."""
        return f"{self.sweep}/{self.task}"


@dataclass(frozen=True)
class Ranked:
    """A trial and its standing among those of its method.

    Args:
        trial: which.
        rank: the share of configurations that it is expected to beat, in 0..1.
    """

    trial: Tried
    rank: float


def ranked(trials: Sequence[Tried], method: str, *, higher_is_better: bool) -> list[Ranked]:
    """A method's trials that came to their end and are among its better half, the best first.

    The best of ``n`` draws beats a share of ``n / (n + 1)`` of all others on average, the next ``(n - 1) / (n + 1)``
    and so on. So the best of twelve says more than the best of two, and scores, which have another scale on every
    task, are not needed. Those that were stopped on the way, or failed, count as beaten.

    Args:
        trials: of one task, of any method.
        method: whose.
        higher_is_better: the direction of the metric.
    """
    own = [one for one in trials if one.method == method and one.state in ENDED]
    done = [one for one in own if one.state == "complete" and math.isfinite(one.value)]
    done.sort(key=lambda one: (-one.value if higher_is_better else one.value, one.trial))
    count = len(own)
    ranks = [Ranked(one, (count - place) / (count + 1)) for place, one in enumerate(done)]
    return [one for one in ranks if one.rank >= 0.5]
