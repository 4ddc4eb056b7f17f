"""Which configurations of earlier sweeps a study tries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.warm_start.earlier import Earlier, Tried, ranked
from orchestrator.warm_start.fit import fitted, nearly_same
from orchestrator.warm_start.prior import Transferred
from search_spaces._base import SearchSpace

MOST = 3
"""Configurations that a study takes from earlier sweeps."""


@dataclass(frozen=True)
class Source:
    """An earlier sweep's task with its trials.

    Args:
        earlier: which.
        similarity: to the task at hand, in 0..1.
        trials: all of its trials.
    """

    earlier: Earlier
    similarity: float
    trials: Sequence[Tried]


def choose(space: SearchSpace, method: str, sources: Iterable[Source], most: int = MOST) -> tuple[Transferred, ...]:
    """A method's best configurations of earlier sweeps, from different ones first.

    They are sorted by similarity times standing. One that is nearly the default, which is tried anyway, or nearly one
    that was chosen before, is passed over.

    Args:
        space: where the method is searched now.
        method: its name.
        sources: earlier sweeps.
        most: how many to take.
    """
    found = [one for source in sources for one in _candidates(space, method, source)]
    chosen: list[Transferred] = []
    taken: Counter[str] = Counter()
    tried = [dict(space.default)]
    while found and len(chosen) < most:
        origin, one = min(found, key=lambda pair: (taken[pair[0]], -pair[1].worth, pair[1].sweep, pair[1].trial))
        found.remove((origin, one))
        if not any(nearly_same(space, one.params, other) for other in tried):
            chosen.append(one)
            tried.append(dict(one.params))
            taken[origin] += 1
    return tuple(chosen)


def _candidates(space: SearchSpace, method: str, source: Source) -> list[tuple[str, Transferred]]:
    earlier = source.earlier
    return [
        (
            earlier.name,
            Transferred(
                params=fitted(space, one.trial.params),
                sweep=earlier.sweep,
                trial=one.trial.trial,
                similarity=source.similarity,
                rank=one.rank,
            ),
        )
        for one in ranked(source.trials, method, higher_is_better=earlier.higher_is_better)
    ]
