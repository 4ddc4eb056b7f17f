"""Which version of a model is its champion: a pure function of what all its versions have recorded.

A version takes the title from its holder only if it is better *beyond doubt*: on the same data and by the same metric,
the lower bound of the difference of their scores lies above 0. Versions keep their score with a 95 % interval, so the
bounds of the difference are recovered from those (MOVER; Zou and Donner, 2008, doi:10.1002/sim.3095)::

    low  = (a - b) - sqrt((a - a_low)^2 + (b_high - b)^2)
    high = (a - b) + sqrt((a_high - a)^2 + (b - b_low)^2)

It needs no symmetry. Scores on the same rows go up and down together, which these bounds do not use: they are rather
too wide than too narrow, and a champion is rather kept than changed by luck.

Versions of one sweep do not challenge each other: the sweep has compared them row by row, and recommended one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Lead:
    """By how much one version is better than another, in units of the metric; below 0 where it is worse.

    Args:
        difference: of their scores.
        low: where it begins at 95 %.
        high: where it ends.
    """

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Promotion:
    """A person's word that a version holds the title.

    Args:
        number: promotions are counted from 1 for each model.
        after: the newest version when it was said; later ones challenge whoever was promoted.
        back: it returns to who held the title before.
    """

    number: int
    after: int
    back: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A version, and what it was measured to be.

    Args:
        version: counted from 1.
        score: on the test split.
        interval: where it lies at 95 %.
        metric: the score's name.
        higher_is_better: which way it goes.
        data_digest: of the rows that it was trained and scored on.
        sweep: that made it; empty where that is not known.
        recommended: its sweep recommends it, rather than calls it as good as the recommended one.
        promotions: of this version.
    """

    version: int
    score: float
    interval: tuple[float, float]
    metric: str
    higher_is_better: bool
    data_digest: str
    sweep: str = ""
    recommended: bool = True
    promotions: tuple[Promotion, ...] = ()

    def comparable(self, other: Candidate) -> bool:
        """Whether both scores are of the same rows by the same metric."""
        return (self.metric, self.data_digest) == (other.metric, other.data_digest)

    def lead(self, other: Candidate) -> Lead:
        """By how much it is better than another that it can be compared with."""
        own, below, above = self._signed()
        theirs, their_below, their_above = other._signed()
        difference = own - theirs
        return Lead(
            difference, difference - math.hypot(below, their_above), difference + math.hypot(above, their_below)
        )

    def beats(self, other: Candidate) -> bool:
        """Whether it takes the title from the other."""
        if not self.comparable(other) or (self.sweep and self.sweep == other.sweep):
            return False
        return self.lead(other).low > 0

    def _signed(self) -> tuple[float, float, float]:
        """Score, and how far its interval goes towards worse and towards better."""
        low, high = self.score - self.interval[0], self.interval[1] - self.score
        return (self.score, low, high) if self.higher_is_better else (-self.score, high, low)


@dataclass(frozen=True)
class Titles:
    """Who holds which title.

    Args:
        champion: the version to use.
        challenger: the newest recommended one beside it.
        before: who held the title before, and did not lose it by a return to someone earlier.
    """

    champion: int
    challenger: int | None = None
    before: int | None = None


def titles(candidates: Iterable[Candidate]) -> Titles | None:
    """Who holds the titles after all challenges in the order of the versions, and all promotions in theirs.

    The first version holds the title until another beats it or is promoted. Everyone who knows the same versions comes
    to the same answer, which is what lets several sweeps register at once.

    Returns:
        Nothing where there are no versions.
    """
    versions = sorted(candidates, key=lambda c: c.version)
    if not versions:
        return None
    line = _line(versions)
    champion = line[-1]
    others = [c for c in versions if c is not champion]
    challengers = [c for c in others if c.recommended] or others
    return Titles(
        champion.version,
        challengers[-1].version if challengers else None,
        line[-2].version if len(line) > 1 else None,
    )


def _line(versions: list[Candidate]) -> list[Candidate]:
    """Everyone who has held the title, the present champion last."""
    told = sorted(
        ((max(one.after, c.version), one.number, c.version, one.back, c) for c in versions for one in c.promotions),
        key=lambda entry: entry[:3],
    )
    line: list[Candidate] = []
    for candidate in versions:
        while told and told[0][0] < candidate.version:
            *_, back, promoted = told.pop(0)
            line = _promoted(line, promoted, back)
        if not line or candidate.beats(line[-1]):
            line.append(candidate)
    for *_, back, promoted in told:
        line = _promoted(line, promoted, back)
    return line


def _promoted(line: list[Candidate], candidate: Candidate, back: bool) -> list[Candidate]:
    if back and candidate in line[:-1]:
        last = max(place for place, one in enumerate(line[:-1]) if one is candidate)
        return line[: last + 1]
    return line if line and line[-1] is candidate else [*line, candidate]
