"""The promotion policy: which version of a model is its champion, a pure function of what all versions have recorded.

A version replaces the champion only if it is significantly better: on the same data and by the same metric, the lower
bound of the difference of their mean scores lies above 0. Versions record their mean score with an interval, at the
level of the look at the test rows that it comes from (95 % for the first), so the bounds of the difference are
recovered from those (MOVER; Zou and Donner, 2008, doi:10.1002/sim.3095)::

    low  = (a - b) - sqrt((a - a_low)^2 + (b_high - b)^2)
    high = (a - b) + sqrt((a_high - a)^2 + (b - b_low)^2)

Symmetry of the intervals is not needed. With intervals at two levels, the bounds are at the lower one at least. The
bounds ignore that scores on the same rows are positively correlated, so they are too wide rather than too narrow: a
champion is kept too long rather than replaced by chance.

A version that is no better than a trivial predictor on its test rows holds no alias.

Versions of one sweep do not challenge each other: the sweep has compared them row by row, and recommended one. Those of
its next look at the test rows, after it was extended, do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.common.metric import Metric
from orchestrator.selection.looks import level_of


@dataclass(frozen=True)
class Lead:
    """By how much one version is better than another, in units of the metric; below 0 where it is worse.

    Args:
        difference: difference of the mean scores.
        low: lower bound.
        high: upper bound.
        level: level of the bounds, in 0..1; where the two versions' intervals are at different levels, the lower one,
            which the bounds have at least.
        at_least: whether the bounds are at a higher level than that.
    """

    difference: float
    low: float
    high: float
    level: float = level_of(1)
    at_least: bool = False

    @property
    def level_text(self) -> str:
        """The level as text, ``95 %`` or ``at least 95 %``."""
        return f"{'at least ' if self.at_least else ''}{100 * self.level:.4g} %"


@dataclass(frozen=True)
class Promotion:
    """A user's decision that a version is the champion.

    Args:
        number: number of the promotion, counted from 1 for each model.
        after: newest version at that time; later ones challenge the promoted version.
        back: whether it is a rollback to an earlier champion.
    """

    number: int
    after: int
    back: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoredVersion:
    """A version with its recorded score.

    Args:
        version: number of the version, counted from 1.
        mean_score: mean score of its method over the seeds, on the test split.
        interval: interval of the mean score, at its look's level.
        metric: metric of the score.
        data_digest: digest of the rows that it was trained and scored on.
        sweep: sweep that registered it; empty where that is unknown.
        look: which look of that sweep at the test rows it comes from, from 1.
        recommended: whether its sweep recommends it; otherwise it is tied with the recommended version.
        beats_baseline: whether it is better than the best trivial predictor on its test rows.
        promotions: promotions of this version.
    """

    version: int
    mean_score: float
    interval: tuple[float, float]
    metric: Metric
    data_digest: str
    sweep: str = ""
    look: int = 1
    recommended: bool = True
    beats_baseline: bool = True
    promotions: tuple[Promotion, ...] = ()

    def is_comparable(self, other: ScoredVersion) -> bool:
        """Return whether both scores are on the same rows by the same metric."""
        return (self.metric.name, self.data_digest) == (other.metric.name, other.data_digest)

    def lead(self, other: ScoredVersion) -> Lead:
        """Return by how much it is better than another version that it is comparable with."""
        score, below, above = self._signed()
        other_score, other_below, other_above = other._signed()
        difference = score - other_score
        low = difference - math.hypot(below, other_above)
        high, level = difference + math.hypot(above, other_below), level_of(min(self.look, other.look))
        return Lead(difference, low, high, level, at_least=self.look != other.look)

    def beats(self, other: ScoredVersion) -> bool:
        """Return whether it replaces another version as champion."""
        if not self.is_comparable(other) or (self.sweep and (self.sweep, self.look) == (other.sweep, other.look)):
            return False
        return self.lead(other).low > 0

    def _signed(self) -> tuple[float, float, float]:
        """Return the score, higher for better, and the extent of its interval towards worse and towards better."""
        low, high = self.mean_score - self.interval[0], self.interval[1] - self.mean_score
        return (self.mean_score, low, high) if self.metric.higher_is_better else (-self.mean_score, high, low)


@dataclass(frozen=True)
class AliasHolders:
    """The versions that hold the aliases of a model.

    Args:
        champion: version to use.
        challenger: newest recommended version beside the champion.
        previous: champion before this one, to which a rollback returns; versions that were rolled back do not count.
    """

    champion: int
    challenger: int | None = None
    previous: int | None = None


def alias_holders(versions: Iterable[ScoredVersion]) -> AliasHolders | None:
    """Return the versions that hold the aliases, after all registrations and promotions in their order.

    The first version is champion until another beats it or is promoted. Every process that reads the same versions
    gets the same answer, which is what lets several sweeps register at once.

    A version that is no better than a trivial predictor holds none, unless a user has promoted it.

    Returns:
        The holders; ``None`` where no version may hold one.
    """
    able = (version for version in versions if version.beats_baseline or version.promotions)
    ordered = sorted(able, key=lambda version: version.version)
    if not ordered:
        return None
    champions = _champions(ordered)
    champion = champions[-1]
    others = [version for version in ordered if version is not champion and version.beats_baseline]
    challengers = [version for version in others if version.recommended] or others
    return AliasHolders(
        champion.version,
        challengers[-1].version if challengers else None,
        champions[-2].version if len(champions) > 1 else None,
    )


def _champions(versions: list[ScoredVersion]) -> list[ScoredVersion]:
    """Return all champions in their order, the present one last."""
    promotions = sorted(
        (
            (max(promotion.after, version.version), promotion.number, version.version, promotion.back, version)
            for version in versions
            for promotion in version.promotions
        ),
        key=lambda promotion: promotion[:3],
    )
    champions: list[ScoredVersion] = []
    for version in versions:
        while promotions and promotions[0][0] < version.version:
            *_, back, promoted = promotions.pop(0)
            champions = _after_promotion(champions, promoted, back)
        if version.beats_baseline and (not champions or version.beats(champions[-1])):
            champions.append(version)
    for *_, back, promoted in promotions:
        champions = _after_promotion(champions, promoted, back)
    return champions


def _after_promotion(champions: list[ScoredVersion], version: ScoredVersion, back: bool) -> list[ScoredVersion]:
    if back and version in champions[:-1]:
        last = max(index for index, champion in enumerate(champions[:-1]) if champion is version)
        return champions[: last + 1]
    return champions if champions and champions[-1] is version else [*champions, version]
