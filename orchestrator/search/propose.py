"""Ask a sampler of Optuna for one configuration.

A sampler is made anew for each proposal. The proposal depends on the trial's seed and the trials that the sampler is
shown, and on nothing that would be lost when the driver dies.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.samplers import Sampler
from search_spaces._base import SearchSpace


def propose(
    sampler: Sampler,
    seed: int,
    space: SearchSpace,
    shown: Sequence[FrozenTrial],
    *,
    higher_is_better: bool,
) -> dict[str, Any]:
    """Return a point of a search space.

    Args:
        sampler: The sampler to ask.
        seed: Seed of 32 bits of whatever is random about the proposal.
        space: The search space.
        shown: The trials that the sampler looks at.
        higher_is_better: The direction of their values.
    """
    direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
    optuna_sampler = sampler.make(seed, space.default)
    study = optuna.create_study(storage=_ShownTrials(shown), sampler=optuna_sampler, direction=direction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return dict(study.ask(fixed_distributions=dict(space.distributions)).params)


class _ShownTrials(InMemoryStorage):
    """A storage that holds the trial that is asked for, and lists other trials.

    Args:
        trials: The trials that it lists.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the listed trials; no copies, since samplers only read them and copying takes most of the time."""
        return [trial for trial in self._trials if states is None or trial.state in states]
