"""CMA-ES that remembers nothing: its generations are computed anew from the trials that are complete."""

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

SPREAD = 1 / 6
"""Standard deviation of the first generation, in ranges of the parameters."""


class FinishedCmaEs(BaseSampler):
    """The covariance matrix adaptation evolution strategy (Hansen, 2016, arXiv:1604.00772), on complete trials.

    Optuna's own sampler keeps its state pickled in the storage and counts generations as they were asked for. Here,
    complete trials in the order of their numbers are told in generations of the strategy's population size, wherever
    they came from, and the next point is drawn after the last full generation. So what is drawn follows from the
    trials, and many trials may run at once. The first generation is drawn around the default configuration.

    Numbers are searched on a scale of 0..1, logarithmic where theirs is; whole numbers and steps are rounded.
    Categorical parameters have no order that the strategy could use: they are drawn independently and uniformly.

    Args:
        seed: of what is drawn.
        start: the default configuration.
    """

    def __init__(self, seed: int, start: Mapping[str, Any]) -> None:
        self._seed = seed
        self._start = start
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are numbers and have more than one value."""
        known = next(iter(_complete(study)), None)
        distributions = known.distributions if known else {}
        return {name: one for name, one in sorted(distributions.items()) if _is_number(one) and not one.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point after the last full generation."""
        if not search_space:
            return {}
        axes = {name: axis_of(one) for name, one in search_space.items()}
        strategy = CMA(
            mean=np.array([axis.place(self._start[name]) for name, axis in axes.items()]),
            sigma=SPREAD,
            bounds=np.array([(0.0, 1.0)] * len(axes)),
            n_max_resampling=10 * len(axes),
            seed=self._seed,
        )
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        told = [
            (np.array([axis.place(one.params[name]) for name, axis in axes.items()]), sign * float(one.value or 0.0))
            for one in _complete(study)
        ]
        for end in range(strategy.population_size, len(told) + 1, strategy.population_size):
            strategy.tell(told[end - strategy.population_size : end])
        return {name: axis.value(at) for (name, axis), at in zip(axes.items(), strategy.ask(), strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What is no number, and everything before the first trial is complete."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _complete(study: Study) -> Sequence[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _is_number(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, (FloatDistribution, IntDistribution))
