"""Hyperband over one search space with all methods (Li et al., 2018, arXiv:1603.06560): brackets of successive halving.

A bracket's trials are promoted when all of them have a result at its rung. Until then, free lanes start trials of the
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
    """Trials that are compared and promoted together.

    Args:
        rung: index of the rung that the trials train to.
        to_start: number of trials that have not started.
        running: number of trials that are training.
        scores: score at the rung, by trial.
        to_promote: trials that continue to the rung and have not been proposed yet.
    """

    rung: int
    to_start: int
    running: int = 0
    scores: dict[TrialKey, float] = field(default_factory=dict)
    to_promote: list[TrialKey] = field(default_factory=list)


class Hyperband:
    """Random configurations of random methods in brackets, whose first rung is each rung in turn.

    Args:
        table: table that is searched.
        seed: seed of the random choices.
        reduction: reduction factor; one of ``reduction`` trials is promoted.
    """

    def __init__(self, table: Table, seed: int, reduction: int = 2) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._task, self._rungs, self._reduction = table.task, table.rungs, reduction
        self._spaces = {method: space_of(curves) for method, curves in table.methods.items()}
        self._random = random.Random(seed)
        self._studies = {
            method: optuna.create_study(sampler=RandomSampler(seed=seed + index))
            for index, method in enumerate(self._spaces)
        }
        self._brackets: list[_Bracket] = []
        self._bracket_count = 0
        self._bracket_of: dict[TrialKey, _Bracket] = {}
        self._params: dict[TrialKey, dict[str, Any]] = {}
        self._counts: Counter[str] = Counter()

    def ask(self) -> Proposal:
        """Return a promoted trial, a new trial of an incomplete bracket, or the first one of the next bracket."""
        for bracket in self._brackets:
            if bracket.to_promote:
                key = bracket.to_promote.pop(0)
                bracket.running += 1
                return Proposal(key, self._params[key], 0, self._rungs[bracket.rung - 1])
        bracket = next((bracket for bracket in self._brackets if bracket.to_start), None) or self._add_bracket()
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
        """Record a result, and pause the trial until its bracket is complete."""
        self._record(key, value if math.isfinite(value) else -math.inf)
        return Decision.STOP if step == self._rungs[-1] else Decision.PAUSE

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """Rank a trial whose lane was lost below all others of its rung."""
        self._record(key, -math.inf)

    def _record(self, key: TrialKey, value: float) -> None:
        bracket = self._bracket_of[key]
        bracket.running -= 1
        bracket.scores[key] = value
        if bracket.running or bracket.to_start or bracket.to_promote:
            return
        count = len(bracket.scores) // self._reduction
        if bracket.rung + 1 == len(self._rungs) or not count:
            self._brackets.remove(bracket)
            return
        bracket.to_promote = sorted(bracket.scores, key=lambda key: -bracket.scores[key])[:count]
        bracket.scores = {}
        bracket.rung += 1

    def _add_bracket(self) -> _Bracket:
        """Add a bracket of ``(s_max + 1) / (s + 1) * reduction ** s`` trials, where ``s`` rungs follow its first."""
        s_max = len(self._rungs) - 1
        s = s_max - self._bracket_count % (s_max + 1)
        self._bracket_count += 1
        trials = math.ceil((s_max + 1) / (s + 1) * self._reduction**s)
        self._brackets.append(_Bracket(s_max - s, trials))
        return self._brackets[-1]

    def _start(self, bracket: _Bracket) -> Proposal:
        method = self._random.choice(list(self._spaces))
        params = dict(self._studies[method].ask(dict(self._spaces[method].distributions)).params)
        key = TrialKey(f"{self._task}/{method}", self._counts[method])
        self._counts[method] += 1
        self._bracket_of[key], self._params[key] = bracket, params
        bracket.to_start -= 1
        bracket.running += 1
        return Proposal(key, params, 0)
