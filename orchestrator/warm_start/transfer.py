"""Choose the configurations of earlier sweeps that a study tries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.warm_start.earlier import EarlierTask, EarlierTrial, better_half
from orchestrator.warm_start.fit import fit_to_space, nearly_equal
from orchestrator.warm_start.prior import Transferred
from search_spaces._base import SearchSpace

MAX_CONFIGURATIONS = 3
"""Largest number of configurations that a study takes from earlier sweeps."""


@dataclass(frozen=True)
class Source:
    """An earlier sweep's task with its trials.

    Args:
        earlier: The earlier task.
        similarity: Its similarity to the present task, in 0..1.
        trials: All of its trials.
    """

    earlier: EarlierTask
    similarity: float
    trials: Sequence[EarlierTrial]


def transfer_configurations(
    space: SearchSpace, method: str, sources: Iterable[Source], limit: int = MAX_CONFIGURATIONS
) -> tuple[Transferred, ...]:
    """Return a method's best configurations of earlier sweeps, one of each sweep before a second of any.

    They are sorted by similarity times rank. A configuration that is nearly the default, which is tried anyway, or
    nearly one that was chosen before, is skipped.

    Args:
        space: The method's present search space.
        method: The method's name.
        sources: The earlier tasks.
        limit: The largest number of configurations.
    """
    candidates = [candidate for source in sources for candidate in _candidates(space, method, source)]
    selection: list[Transferred] = []
    counts: Counter[str] = Counter()
    tried = [dict(space.default)]
    while candidates and len(selection) < limit:
        name, best = min(
            candidates, key=lambda pair: (counts[pair[0]], -pair[1].priority, pair[1].sweep, pair[1].trial)
        )
        candidates.remove((name, best))
        if not any(nearly_equal(space, best.params, params) for params in tried):
            selection.append(best)
            tried.append(dict(best.params))
            counts[name] += 1
    return tuple(selection)


def _candidates(space: SearchSpace, method: str, source: Source) -> list[tuple[str, Transferred]]:
    """Return the configurations of one earlier task, each with the task's name."""
    earlier = source.earlier
    return [
        (
            earlier.name,
            Transferred(
                params=fit_to_space(space, ranked.trial.params),
                sweep=earlier.sweep,
                trial=ranked.trial.trial,
                similarity=source.similarity,
                rank=ranked.rank,
            ),
        )
        for ranked in better_half(source.trials, method, higher_is_better=earlier.higher_is_better)
    ]
