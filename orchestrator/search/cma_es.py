"""CMA-ES without a state of its own: its generations are computed anew from the complete trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cmaes import CMA
from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.axes import axis_of

INITIAL_SIGMA = 1 / 6
"""Standard deviation of the first generation, as a fraction of each parameter's range."""


class StatelessCmaEs(BaseSampler):
    """The covariance matrix adaptation evolution strategy (Hansen, 2016, arXiv:1604.00772) over complete trials.

    Optuna's own sampler keeps its state pickled in the storage and counts generations in the order in which they were
    asked for. Here the complete trials, in the order of their numbers, form generations of the strategy's population
    size, whichever sampler proposed them, and the next point is drawn after the last full generation. So the proposal
    follows from the trials, and many trials may run at once. The first generation is drawn around the default
    configuration.

    Numbers are searched on a scale of 0..1, logarithmic where their distribution is; whole numbers and steps are
    rounded. Choices without an order are of no use to the strategy: they are drawn independently and uniformly.

    Args:
        seed: Seed of the draws.
        start: The default configuration.
    """

    def __init__(self, seed: int, start: Mapping[str, Any]) -> None:
        self._seed = seed
        self._start = start
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are numbers and have more than one value."""
        first = next(iter(_complete_trials(study)), None)
        distributions = first.distributions if first else {}
        return {
            name: distribution
            for name, distribution in sorted(distributions.items())
            if isinstance(distribution, (FloatDistribution, IntDistribution)) and not distribution.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point after the last full generation."""
        if not search_space:
            return {}
        axes = {name: axis_of(distribution) for name, distribution in search_space.items()}

        def position(params: Mapping[str, Any]) -> Any:
            return np.array([axis.position(params[name]) for name, axis in axes.items()])

        strategy = CMA(
            mean=position(self._start),
            sigma=INITIAL_SIGMA,
            bounds=np.array([(0.0, 1.0)] * len(axes)),
            n_max_resampling=10 * len(axes),
            seed=self._seed,
        )
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        losses = [(position(done.params), sign * float(done.value or 0.0)) for done in _complete_trials(study)]
        for end in range(strategy.population_size, len(losses) + 1, strategy.population_size):
            strategy.tell(losses[end - strategy.population_size : end])
        return {name: axis.value(share) for (name, axis), share in zip(axes.items(), strategy.ask(), strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value: for choices, and for everything until the first trial is complete."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _complete_trials(study: Study) -> Sequence[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
