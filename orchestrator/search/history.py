"""What a sampler is shown of a study: at most so much that its answer takes as long as it always took.

Everything shown follows from the trials' parameters, values and states, in the order of their numbers, and from
nothing else. So a study that was rebuilt from its records shows what it would have shown without the interruption.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from orchestrator.common.trial_types import Ending

_WHENEVER = datetime.fromtimestamp(0)
_SHOWN = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class History:
    """A study's trials as Optuna's samplers read them.

    Args:
        distributions: of the parameters.
        higher_is_better: the direction of the values.
        learns_from_rungs: whether a trial that has a value at a rung is shown as if it had been stopped there. One
            that waits at a rung, or is on its way to the next, would otherwise tell nothing for as long as it is open.
        best: so many trials are shown for their values.
        recent: so many more are shown for their numbers, and as many open ones.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        *,
        higher_is_better: bool,
        learns_from_rungs: bool,
        best: int,
        recent: int,
    ) -> None:
        self._distributions = dict(distributions)
        self._sign = 1 if higher_is_better else -1
        self._learns_from_rungs = learns_from_rungs
        self._best, self._recent = best, recent
        self._trials: list[FrozenTrial] = []
        self._open: dict[int, None] = {}
        self._known: list[int] = []
        self._ranked: list[tuple[float, float, int]] = []

    def __len__(self) -> int:
        return len(self._trials)

    def start(self, params: Mapping[str, Any], constraints: Mapping[str, float]) -> None:
        """The next trial begins."""
        number = len(self._trials)
        self._open[number] = None
        self._trials.append(made(number, params, self._distributions, constraints))

    def report(self, number: int, rung: int, value: float) -> None:
        """A trial has a value at a rung."""
        trial = self._trials[number]
        self._forget(trial)
        trial.intermediate_values[rung] = value
        if self._learns_from_rungs:
            self._learn(trial, TrialState.PRUNED)

    def end(self, number: int, state: Ending, value: float) -> None:
        """A trial ends. Failed and killed ones are shown no more: they say nothing of their parameters."""
        trial = self._trials[number]
        self._forget(trial)
        if state == "complete":
            trial.value = value
        self._learn(trial, _SHOWN.get(state, TrialState.FAIL))

    def first(self, count: int) -> Sequence[FrozenTrial]:
        """The first trials, whatever has become of them."""
        return self._trials[:count]

    def shown(self) -> list[FrozenTrial]:
        """The best, the most recent, and those without a value, in the order of their numbers."""
        if not self._recent:
            return []
        numbers = {*self._known[-self._recent :], *itertools.islice(reversed(self._open), self._recent)}
        if len(self._known) > self._recent:
            numbers |= {number for *_, number in self._ranked[: self._best]}
        return [self._trials[number] for number in sorted(numbers)]

    def _learn(self, trial: FrozenTrial, state: TrialState) -> None:
        number = trial.number - 1
        trial.state = state
        self._open.pop(number, None)
        if state != TrialState.FAIL:
            bisect.insort(self._known, number)
            bisect.insort(self._ranked, self._rank(trial))

    def _forget(self, trial: FrozenTrial) -> None:
        """Before what is known of a trial changes."""
        if trial.state != TrialState.RUNNING:
            self._known.pop(bisect.bisect_left(self._known, trial.number - 1))
            self._ranked.pop(bisect.bisect_left(self._ranked, self._rank(trial)))

    def _rank(self, trial: FrozenTrial) -> tuple[float, float, int]:
        """Sorts as Optuna's TPE does: what is complete, then a later rung, then a better value."""
        rung = math.inf if trial.state == TrialState.COMPLETE else max(trial.intermediate_values, default=-1)
        value = trial.value if trial.state == TrialState.COMPLETE else trial.intermediate_values.get(int(rung))
        loss = math.inf if value is None or math.isnan(value) else -self._sign * value
        return (-rung, loss, trial.number - 1)


def made(
    number: int,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    constraints: Mapping[str, float],
) -> FrozenTrial:
    """A running trial. Optuna's numbers are one higher here: 0 is that of the trial that a sampler is asked for."""
    trial = FrozenTrial(
        number=number + 1,
        trial_id=number + 1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=_WHENEVER,
        datetime_complete=None,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
    for name, value in constraints.items():
        trial.set_constraint(name, value)
    return trial
