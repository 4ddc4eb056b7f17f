"""Policies that see one big search space, in which the method is one more choice.

So a single Optuna study with a conditional space and Ray Tune's ASHA would be written by hand. ASHA is the stopping
variant, as Ray's scheduler does it: at a rung, a trial ends if it is below the quantile of all that came there before,
whatever their method (Li et al., 2020, arXiv:1810.05934).
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
        table: says what there is.
        sampler: proposes.
        seed: of the order in which the methods are listed.
        reduction: one in so many goes on at a rung; ``None`` stops nobody.
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
        self._open: dict[TrialKey, Trial] = {}
        self._counts: Counter[str] = Counter()
        if defaults:
            for method, space in self._spaces.items():
                named = {f"{method}.{name}": value for name, value in space.default.items()}
                self._study.enqueue_trial({"method": method, **named})

    def ask(self) -> Proposal:
        """A method, and then its parameters."""
        trial = self._study.ask()
        method = trial.suggest_categorical("method", list(self._spaces))
        space = self._spaces[method].distributions
        params = {name: _suggest(trial, f"{method}.{name}", one) for name, one in space.items()}
        key = TrialKey(f"{self._task}/{method}", self._counts[method])
        self._counts[method] += 1
        self._open[key] = trial
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
        """Stop whoever is behind."""
        trial = self._open[key]
        if not math.isfinite(value):
            self._study.tell(trial, state=TrialState.FAIL)
            return Decision.STOP
        trial.report(value, step)
        if step == self._asha.rungs[-1]:
            self._study.tell(trial, value)
            return Decision.STOP
        if self._asha.goes_on(step, value):
            return Decision.CONTINUE
        self._study.tell(trial, state=TrialState.PRUNED)
        return Decision.STOP

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """A trial's lanes died."""
        self._study.tell(self._open[key], state=TrialState.FAIL)


class Asha:
    """Who goes on at a rung, of all methods together.

    Args:
        rungs: optimizer steps.
        reduction: one in so many goes on, so that every so many-fold step is a rung; ``None`` stops nobody.
    """

    def __init__(self, rungs: tuple[int, ...], reduction: int | None) -> None:
        self.rungs = rungs
        self._quantile = 0.0 if reduction is None else 1 - 1 / reduction
        self._judged = [rungs[0]]
        for rung in rungs:
            if reduction and rung >= reduction * self._judged[-1]:
                self._judged.append(rung)
        self._values: dict[int, list[float]] = defaultdict(list)

    def goes_on(self, step: int, value: float) -> bool:
        """Whether a trial is among the best so far; the first at a rung is."""
        if step not in self._judged:
            return True
        values = self._values[step]
        good = not values or value >= float(np.quantile(values, self._quantile))
        values.append(value)
        return good


def tpe(seed: int) -> BaseSampler:
    """Optuna's for conditional spaces and parallel lanes: multivariate within a group of parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def at_random(seed: int) -> BaseSampler:
    """Uniform, the method as well."""
    return RandomSampler(seed=seed)


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        case FloatDistribution():
            return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    raise TypeError(f"{type(distribution).__name__} is not a distribution of one value")
