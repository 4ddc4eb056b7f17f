"""The samplers: Optuna's, each asked with a seed of the trial's own and shown the trials so far.

A sampler lives for one question. What it answers depends on that seed and those trials alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces._base import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A way to propose configurations.

    Args:
        make: of a seed and the default configuration.
        at_random: so many trials it draws before it looks at values.
        learns_from_rungs: whether it can use trials that have not come to their end.
        best: so many trials it is shown for their values.
        recent: so many more for their numbers, and as many that run.
    """

    make: Callable[[int, Mapping[str, Any]], BaseSampler]
    at_random: int = 0
    learns_from_rungs: bool = False
    best: int = 0
    recent: int = 0


def _tpe(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    """Multivariate; no groups, since no space here is conditional. Running trials count as bad ones."""
    return TPESampler(multivariate=True, constant_liar=True, seed=seed)


def _gp(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    return GPSampler(seed=seed)


def _cma_es(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    from orchestrator.search.cma_es import FinishedCmaEs  # it takes half a second to import

    return FinishedCmaEs(seed, default)


def _random(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    return RandomSampler(seed=seed)


EVERYTHING = 1_000_000
SAMPLERS: Mapping[str, Sampler] = {
    # 25 trials at most are TPE's good ones, and the older a bad one, the less it weighs: nothing of note is kept back
    "tpe": Sampler(make=_tpe, at_random=10, learns_from_rungs=True, best=50, recent=100),
    "gp": Sampler(make=_gp, at_random=10, best=50, recent=50),  # its time grows with the cube
    "cmaes": Sampler(make=_cma_es, recent=EVERYTHING),
    "random": Sampler(make=_random),
    "grid": Sampler(make=_random),  # never asked: what it tries is listed
}


def propose(
    sampler: Sampler,
    seed: int,
    space: SearchSpace,
    shown: Sequence[FrozenTrial],
    *,
    higher_is_better: bool,
) -> dict[str, Any]:
    """A point of the space.

    Args:
        sampler: that is asked.
        seed: of whatever is random about the answer, 32 bits.
        space: where to look.
        shown: the trials so far.
        higher_is_better: the direction of their values.
    """
    direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
    made = sampler.make(seed, space.default)
    study = optuna.create_study(storage=_Shown(shown), sampler=made, direction=direction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return dict(study.ask(fixed_distributions=dict(space.distributions)).params)


class _Shown(InMemoryStorage):
    """Holds the trial that is asked for, and shows others.

    Args:
        trials: what it shows.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The others."""
        return [trial for trial in self._trials if states is None or trial.state in states]
