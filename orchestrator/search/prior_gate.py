"""The gate for configurations of earlier sweeps: while too many of them fall behind, no more are tried.

A transferred configuration and its method's default are compared at the first rung, which is early and costs little.
All methods of a task are counted together, since their transferred configurations come from the same earlier sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from orchestrator.search.history import History, is_default

EXAMINED_TRIALS = 40
"""Number of a study's first trials that are examined; transferred configurations come early."""

_FIRST_RUNG = 0


@dataclass(frozen=True)
class _Member:
    history: History
    sign: int
    transferred: Sequence[Mapping[str, Any]]


class PriorGate:
    """Compares the transferred trials of one task's studies with their defaults."""

    def __init__(self) -> None:
        self._members: list[_Member] = []

    def join(self, history: History, transferred: Sequence[Mapping[str, Any]], *, higher_is_better: bool) -> None:
        """Add a study; one without transferred configurations has no influence.

        Args:
            history: Its trials; the first is the default.
            transferred: Its configurations from earlier sweeps.
            higher_is_better: The direction of the values.
        """
        if transferred:
            self._members.append(_Member(history, 1 if higher_is_better else -1, transferred))

    @property
    def use_prior(self) -> bool:
        """Whether more transferred configurations may be tried.

        One of them may be behind its default, and two more for each that is ahead: a good configuration may start
        slowly.
        """
        outcomes = [is_ahead for member in self._members for is_ahead in _outcomes(member)]
        ahead = sum(outcomes)
        return len(outcomes) - ahead <= 1 + 2 * ahead


def _outcomes(member: _Member) -> list[bool]:
    """Return for each transferred trial at the first rung whether it is ahead of the default there."""
    trials = [trial for trial in member.history.first(EXAMINED_TRIALS) if _FIRST_RUNG in trial.intermediate_values]
    if not trials or not is_default(trials[0]):
        return []
    default = _gain(trials[0], member.sign)
    return [_gain(trial, member.sign) > default for trial in trials[1:] if trial.params in member.transferred]


def _gain(trial: FrozenTrial, sign: int) -> float:
    """Return the value at the first rung with the sign that makes higher better."""
    value = trial.intermediate_values[_FIRST_RUNG]
    return sign * value if math.isfinite(value) else -math.inf
