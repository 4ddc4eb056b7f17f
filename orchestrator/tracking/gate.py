"""Which version of a model is its champion: a pure function of all its versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A version, and what it was measured to be.

    Args:
        version: counted from 1.
        score: on the test split.
        metric: the score's name.
        higher_is_better: which way it goes.
        data_digest: of the rows that it was trained and scored on.
    """

    version: int
    score: float
    metric: str
    higher_is_better: bool
    data_digest: str

    def beats(self, other: Candidate) -> bool:
        """Whether it is better on the same data; scores on other rows or by another metric cannot be compared."""
        if (self.metric, self.data_digest) != (other.metric, other.data_digest):
            return False
        return self.score > other.score if self.higher_is_better else self.score < other.score


def champion(candidates: Iterable[Candidate]) -> Candidate | None:
    """Who holds the title after all challenges in the order of the versions.

    The first version holds it until another beats it. Everyone who knows the same versions comes to the same answer,
    which is what lets several sweeps register at once.
    """
    holder: Candidate | None = None
    for candidate in sorted(candidates, key=lambda c: c.version):
        if holder is None or candidate.beats(holder):
            holder = candidate
    return holder
