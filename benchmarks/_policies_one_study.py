"""Policies with one search space for all methods, in which the method is a categorical parameter.

This is the usual way to search with a single Optuna study with a conditional space and Ray Tune's ASHA. ASHA is the
stopping variant of Ray's scheduler: at a rung, a trial stops if its score is below the quantile of all earlier scores
at that rung, of any method (Li et al., 2020, arXiv:1810.05934).
"""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.search.plans import Decision, Proposal
from orchestrator.simulation.spaces import space_of
from orchestrator.simulation.table import Table


class OneStudy:
    """A study over methods and their parameters.

    Args:
        table: table that is searched.
        sampler: sampler of methods and parameters.
        seed: seed of the order of the methods in the search space.
        reduction: reduction factor of ASHA; ``None`` trains every trial to the last rung.
        defaults: whether every method's default is tried first.
    """

    def __init__(
        self, table: Table, sampler: BaseSampler, seed: int, *, reduction: int | None, defaults: bool = False
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._task = table.task
        methods = random.Random(seed).sample(list(table.methods), len(table.methods))
        self._spaces = {method: space_of(table.methods[method]) for method in methods}
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asha = Asha(table.rungs, reduction)
        self._running: dict[TrialKey, Trial] = {}
        self._counts: Counter[str] = Counter()
        if defaults:
            for method, space in self._spaces.items():
                default = {f"{method}.{name}": value for name, value in space.default.items()}
                self._study.enqueue_trial({"method": method, **default})

    def ask(self) -> Proposal:
        """Return a trial with a sampled method and its sampled parameters."""
        trial = self._study.ask()
        method = trial.suggest_categorical("method", list(self._spaces))
        space = self._spaces[method].distributions
        params = {name: _suggest(trial, f"{method}.{name}", distribution) for name, distribution in space.items()}
        key = TrialKey(f"{self._task}/{method}", self._counts[method])
        self._counts[method] += 1
        self._running[key] = trial
        return Proposal(key, params, 0)

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        """Record a result, and stop the trial if ASHA does or the last rung is reached."""
        trial = self._running[key]
        if not math.isfinite(value):
            self._study.tell(trial, state=TrialState.FAIL)
            return Decision.STOP
        trial.report(value, step)
        if step == self._asha.rungs[-1]:
            self._study.tell(trial, value)
            return Decision.STOP
        if self._asha.continues(step, value):
            return Decision.CONTINUE
        self._study.tell(trial, state=TrialState.PRUNED)
        return Decision.STOP

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """Record a trial whose lane was lost as failed."""
        self._study.tell(self._running[key], state=TrialState.FAIL)


class Asha:
    """The stopping rule at rungs, for trials of all methods together.

    Args:
        rungs: optimizer steps at which results are reported.
        reduction: reduction factor; one of ``reduction`` trials continues, and only rungs whose steps grow by at least
            this factor stop trials. ``None`` never stops a trial.
    """

    def __init__(self, rungs: tuple[int, ...], reduction: int | None) -> None:
        self.rungs = rungs
        self._quantile = 0.0 if reduction is None else 1 - 1 / reduction
        self._stopping_rungs = [rungs[0]]
        for rung in rungs:
            if reduction and rung >= reduction * self._stopping_rungs[-1]:
                self._stopping_rungs.append(rung)
        self._values: dict[int, list[float]] = defaultdict(list)

    def continues(self, step: int, value: float) -> bool:
        """Record a score, and return whether it reaches the quantile of the earlier ones; the first at a rung does."""
        if step not in self._stopping_rungs:
            return True
        values = self._values[step]
        passes = not values or value >= float(np.quantile(values, self._quantile))
        values.append(value)
        return passes


def tpe_sampler(seed: int) -> BaseSampler:
    """Return Optuna's TPE for conditional spaces and parallel trials: multivariate within groups of parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def random_sampler(seed: int) -> BaseSampler:
    """Return a sampler that draws the method and its parameters uniformly."""
    return RandomSampler(seed=seed)


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        case FloatDistribution():
            return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    raise TypeError(f"{type(distribution).__name__} is not categorical, int or float")
