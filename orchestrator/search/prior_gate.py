"""Whether earlier sweeps are believed: what was borrowed from them has to beat the methods' defaults.

A borrowed configuration and its method's default are compared at the first rung, which is early and costs little. All
methods of a task are counted together, since what they borrow comes from the same earlier sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from orchestrator.search.history import History

JUDGED = 40
"""So many of a study's trials are looked at; what is borrowed comes early."""

_FIRST_RUNG, _DEFAULT = 0, 1  # a history's numbers begin with 1


@dataclass(frozen=True)
class _Member:
    history: History
    sign: int
    transferred: Sequence[Mapping[str, Any]]


class PriorGate:
    """The studies of one task, and what their borrowed trials came to."""

    def __init__(self) -> None:
        self._members: list[_Member] = []

    def join(self, history: History, transferred: Sequence[Mapping[str, Any]], *, higher_is_better: bool) -> None:
        """Take a study in; one that borrows nothing tells nothing.

        Args:
            history: its trials; the default is the first.
            transferred: its configurations from earlier sweeps.
            higher_is_better: the direction of the values.
        """
        if transferred:
            self._members.append(_Member(history, 1 if higher_is_better else -1, transferred))

    @property
    def use_prior(self) -> bool:
        """Not too many of the borrowed trials are behind their default.

        One may be, and two more for each that is ahead: a good configuration may start slowly.
        """
        judged = [ahead for member in self._members for ahead in _judged(member)]
        ahead = sum(judged)
        return len(judged) - ahead <= 1 + 2 * ahead


def _judged(member: _Member) -> list[bool]:
    """Of each borrowed trial at the first rung, whether it is ahead of the default there."""
    trials = [one for one in member.history.first(JUDGED) if _FIRST_RUNG in one.intermediate_values]
    if not trials or trials[0].number != _DEFAULT:
        return []
    default = _worth(trials[0], member.sign)
    return [_worth(one, member.sign) > default for one in trials[1:] if one.params in member.transferred]


def _worth(trial: FrozenTrial, sign: int) -> float:
    """At the first rung, turned so that higher is better."""
    value = trial.intermediate_values[_FIRST_RUNG]
    return sign * value if math.isfinite(value) else -math.inf
