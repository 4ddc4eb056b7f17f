"""Hyperband over one big search space (Li et al., 2018, arXiv:1603.06560): brackets of successive halving.

A bracket's rung is decided when all of its trials are there. While they are on their way, lanes that are free begin the
next bracket, as in Ray Tune's HyperBandScheduler.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.samplers import RandomSampler

from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.search.plans import Decision, Proposal
from orchestrator.simulation.spaces import space_of
from orchestrator.simulation.table import Table


@dataclass
class _Bracket:
    """Trials that are halved together.

    Args:
        place: index of the rung that they are on their way to.
        to_start: trials that have not started.
        coming: those on their way.
        there: scores of those that have come, by trial.
        to_promote: trials that go on and have not been given out.
    """

    place: int
    to_start: int
    coming: int = 0
    there: dict[TrialKey, float] = field(default_factory=dict)
    to_promote: list[TrialKey] = field(default_factory=list)


class Hyperband:
    """Random configurations of random methods in brackets that start at every rung in turn.

    Args:
        table: says what there is.
        seed: of what is drawn.
        reduction: one in so many goes on.
    """

    def __init__(self, table: Table, seed: int, reduction: int = 2) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._task, self._rungs, self._reduction = table.task, table.rungs, reduction
        self._spaces = {method: space_of(curves) for method, curves in table.methods.items()}
        self._random = random.Random(seed)
        self._studies = {
            method: optuna.create_study(sampler=RandomSampler(seed=seed + place))
            for place, method in enumerate(self._spaces)
        }
        self._brackets: list[_Bracket] = []
        self._begun = 0
        self._of: dict[TrialKey, _Bracket] = {}
        self._params: dict[TrialKey, dict[str, Any]] = {}
        self._counts: Counter[str] = Counter()

    def ask(self) -> Proposal:
        """Go on with who was promoted, start what is missing in a bracket, or begin the next one."""
        for bracket in self._brackets:
            if bracket.to_promote:
                key = bracket.to_promote.pop(0)
                bracket.coming += 1
                return Proposal(key, self._params[key], 0, self._rungs[bracket.place - 1])
        bracket = next((one for one in self._brackets if one.to_start), None) or self._next_bracket()
        return self._start(bracket)

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        """Wait for the others of the bracket."""
        self._arrive(key, value if math.isfinite(value) else -math.inf)
        return Decision.STOP if step == self._rungs[-1] else Decision.PAUSE

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """A trial's lanes died: it is the last of its rung."""
        self._arrive(key, -math.inf)

    def _arrive(self, key: TrialKey, value: float) -> None:
        bracket = self._of[key]
        bracket.coming -= 1
        bracket.there[key] = value
        if bracket.coming or bracket.to_start or bracket.to_promote:
            return
        kept = len(bracket.there) // self._reduction
        if bracket.place + 1 == len(self._rungs) or not kept:
            self._brackets.remove(bracket)
            return
        bracket.to_promote = sorted(bracket.there, key=lambda one: -bracket.there[one])[:kept]
        bracket.there = {}
        bracket.place += 1

    def _next_bracket(self) -> _Bracket:
        """With ``s`` rungs before the last: ``(s_max + 1) / (s + 1) * reduction ** s`` trials."""
        most = len(self._rungs) - 1
        before = most - self._begun % (most + 1)
        self._begun += 1
        trials = math.ceil((most + 1) / (before + 1) * self._reduction**before)
        self._brackets.append(_Bracket(most - before, trials))
        return self._brackets[-1]

    def _start(self, bracket: _Bracket) -> Proposal:
        method = self._random.choice(list(self._spaces))
        params = dict(self._studies[method].ask(dict(self._spaces[method].distributions)).params)
        key = TrialKey(f"{self._task}/{method}", self._counts[method])
        self._counts[method] += 1
        self._of[key], self._params[key] = bracket, params
        bracket.to_start -= 1
        bracket.coming += 1
        return Proposal(key, params, 0)
