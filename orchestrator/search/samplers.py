"""The samplers that a configuration can name.

This module is read with every configuration, so it imports Optuna only where a sampler is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Make = Callable[[int, Mapping[str, Any]], "BaseSampler"]
"""Makes a sampler from a seed of 32 bits and the default configuration."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A way to propose configurations.

    Args:
        make: Makes Optuna's sampler for one proposal.
        at_random: Number of first trials that it draws without looking at values.
        learns_from_rungs: Whether it can use the values of trials that are not complete.
        best: Number of trials that it is shown for their values.
        recent: Number of trials that it is shown for being the latest; as many running ones are added.
        lists_points: Whether it tries every point of a space from a list, and is never asked.
    """

    make: Make
    at_random: int = 0
    learns_from_rungs: bool = False
    best: int = 0
    recent: int = 0
    lists_points: bool = False

    @property
    def needs_complete_trials(self) -> bool:
        """Whether it learns from complete trials only, so that early stopping would leave it with few."""
        return self.recent > 0 and not self.learns_from_rungs


def _tpe(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    """Make a multivariate TPE; without groups, since no space here is conditional. Running trials count as bad ones."""
    from optuna.samplers import TPESampler

    return TPESampler(multivariate=True, constant_liar=True, seed=seed)


def _gp(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def _cma_es(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    from orchestrator.search.cma_es import StatelessCmaEs  # its package takes half a second to import

    return StatelessCmaEs(seed, default)


def _random(seed: int, default: Mapping[str, Any]) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


ALL_TRIALS = 1_000_000
SAMPLERS: Mapping[str, Sampler] = {
    # TPE takes at most 25 trials as good ones and gives older bad ones less weight, so it misses nothing of note
    "tpe": Sampler(make=_tpe, at_random=10, learns_from_rungs=True, best=50, recent=100),
    # the time of a Gaussian process grows with the cube of the trials
    "gp": Sampler(make=_gp, at_random=10, best=50, recent=50),
    "cmaes": Sampler(make=_cma_es, recent=ALL_TRIALS),
    "random": Sampler(make=_random),
    "grid": Sampler(make=_random, lists_points=True),
}
"""The samplers by their names in a configuration."""
