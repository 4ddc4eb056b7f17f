"""The trials of a study as a sampler sees them: a bounded number, so that a proposal never takes longer.

Which trials are shown follows from their parameters, values and states, in the order of their numbers, and from
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

_NO_TIME = datetime.fromtimestamp(0)
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class History:
    """A study's trials as Optuna's samplers read them.

    Args:
        distributions: The parameters' distributions.
        higher_is_better: The direction of the values.
        learns_from_rungs: Whether a trial with a value at a rung is shown as if it had been pruned there. Otherwise a
            trial that waits at a rung, or trains on to the next, would be of no use for as long as it is open.
        best: Number of trials that are shown for their values.
        recent: Number of trials that are shown for being the latest, and of open trials that are shown.
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
        self._scored: list[int] = []
        self._ranked: list[tuple[float, float, int]] = []

    def __len__(self) -> int:
        return len(self._trials)

    def start(self, params: Mapping[str, Any], constraints: Mapping[str, float]) -> None:
        """Add the next trial.

        Args:
            params: Its parameters.
            constraints: By how much it exceeds each constraint; at most 0 where it does not.
        """
        number = len(self._trials)
        self._open[number] = None
        self._trials.append(running_trial(number, params, self._distributions, constraints))

    def report(self, number: int, rung: int, value: float) -> None:
        """Record a trial's value at a rung, counted from 0."""
        trial = self._trials[number]
        self._remove_from_ranking(trial)
        trial.intermediate_values[rung] = value
        if self._learns_from_rungs:
            self._add_to_ranking(trial, TrialState.PRUNED)

    def end(self, number: int, state: Ending, value: float) -> None:
        """End a trial. Failed and killed ones are shown no more: their parameters were not the reason."""
        trial = self._trials[number]
        self._remove_from_ranking(trial)
        if state == "complete":
            trial.value = value
        self._add_to_ranking(trial, _STATES.get(state, TrialState.FAIL))

    def first(self, count: int) -> Sequence[FrozenTrial]:
        """Return the first trials of the study, whatever their state."""
        return self._trials[:count]

    def shown(self) -> list[FrozenTrial]:
        """Return the best trials, the latest, and open ones without a value, in the order of their numbers."""
        if not self._recent:
            return []
        numbers = {*self._scored[-self._recent :], *itertools.islice(reversed(self._open), self._recent)}
        if len(self._scored) > self._recent:
            numbers |= {number for *_, number in self._ranked[: self._best]}
        return [self._trials[number] for number in sorted(numbers)]

    def _add_to_ranking(self, trial: FrozenTrial, state: TrialState) -> None:
        number = study_number(trial)
        trial.state = state
        self._open.pop(number, None)
        if state != TrialState.FAIL:
            bisect.insort(self._scored, number)
            bisect.insort(self._ranked, self._sort_key(trial))

    def _remove_from_ranking(self, trial: FrozenTrial) -> None:
        """Take a trial out of the ranking; to be called before its value changes, since its key is looked up."""
        if trial.state != TrialState.RUNNING:
            self._scored.pop(bisect.bisect_left(self._scored, study_number(trial)))
            self._ranked.pop(bisect.bisect_left(self._ranked, self._sort_key(trial)))

    def _sort_key(self, trial: FrozenTrial) -> tuple[float, float, int]:
        """Return a key that sorts as Optuna's TPE does: complete trials, then a later rung, then a better value."""
        rung = math.inf if trial.state == TrialState.COMPLETE else max(trial.intermediate_values, default=-1)
        value = trial.value if trial.state == TrialState.COMPLETE else trial.intermediate_values.get(int(rung))
        loss = math.inf if value is None or math.isnan(value) else -self._sign * value
        return (-rung, loss, study_number(trial))


def study_number(trial: FrozenTrial) -> int:
    """Return a trial's number in its study, from 0; Optuna's, which :func:`running_trial` sets, is one higher."""
    return trial.number - 1


def is_default(trial: FrozenTrial) -> bool:
    """Return whether a trial is its study's first, which is the default configuration."""
    return study_number(trial) == 0


def running_trial(
    number: int,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    constraints: Mapping[str, float],
) -> FrozenTrial:
    """Return a running trial for Optuna's samplers.

    Optuna's number is one higher than the study's (see :func:`study_number`): in the storage that a sampler is shown, 0
    is the trial that it is asked for.

    Args:
        number: The trial's number in its study, from 0.
        params: Its parameters.
        distributions: The parameters' distributions.
        constraints: By how much it exceeds each constraint.
    """
    trial = FrozenTrial(
        number=number + 1,
        trial_id=number + 1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=_NO_TIME,
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
