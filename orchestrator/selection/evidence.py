"""How sure the scores of several methods are, together: what the test rows leave open, and what the seeds do.

A method's score is the mean over its retrainings, each a seed, on the same test rows. Both could have been others:

- *Rows* are resampled jointly for all methods and seeds, so that what is hard for everybody does not count as a
  difference between methods. The spread of the means gives the rows' covariance.
- *Seeds* vary each method by itself. Three say little of a variance, so it is pooled over the methods.

A seed's score varies over seeds because of the seed itself and because it meets these rows by chance. The latter is in
both parts; it is estimated from the resamples, where seeds move apart, and taken out of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.selection.intervals import Statistic, bootstrap_jointly

Floats = NDArray[np.float64]
MOST_DRAWN, FEWEST_REPEATS = 20_000_000, 200


@dataclass(frozen=True)
class Arm:
    """A method in the comparison.

    Args:
        scores: of each retraining on the test split.
        statistics: the same scores on resamples of its rows.
        random: whether another seed could have given another score; ``False`` for what does not train.
    """

    scores: tuple[float, ...]
    statistics: tuple[Statistic, ...]
    random: bool = True


@dataclass(frozen=True)
class Evidence:
    """The scores of the methods and how far they could be off.

    Args:
        means: over the seeds, shape ``(methods,)``.
        row_covariance: of the means over the rows, shape ``(methods, methods)``.
        seed_variance: of one retraining, pooled over the methods.
        seeds: how many retrainings each mean is of; 0 where nothing is random.
        rows: of the test split.
        freedom: degrees of freedom of the seed variance; 0 where nobody was retrained.
    """

    means: Floats
    row_covariance: Floats
    seed_variance: float
    seeds: NDArray[np.int64]
    rows: int
    freedom: int

    @property
    def seed_parts(self) -> Floats:
        """What the seeds add to the variance of each mean, shape ``(methods,)``."""
        parts: Floats = np.where(self.seeds > 0, self.seed_variance / np.maximum(self.seeds, 1), 0.0)
        return parts

    @property
    def covariance(self) -> Floats:
        """Of the means, over rows and seeds; shape ``(methods, methods)``."""
        total: Floats = self.row_covariance + np.diag(self.seed_parts)
        return total

    def freedom_of(self, rows: float, seeds: float) -> float:
        """Degrees of freedom of a variance that is the sum of both parts (Satterthwaite, 1946)."""
        if rows + seeds <= 0:
            return max(1.0, self.rows - 1.0)
        weights = rows**2 / max(1, self.rows - 1) + (seeds**2 / self.freedom if self.freedom else 0.0)
        return max(1.0, (rows + seeds) ** 2 / weights) if weights > 0 else max(1.0, self.rows - 1.0)

    def contrast(self, one: int, other: int) -> tuple[float, float]:
        """Standard error of the difference between two means, and its degrees of freedom."""
        rows = self.row_covariance[one, one] + self.row_covariance[other, other] - 2 * self.row_covariance[one, other]
        seeds = self.seed_parts[one] + self.seed_parts[other] if one != other else 0.0
        return float(np.sqrt(max(0.0, rows + seeds))), self.freedom_of(max(0.0, float(rows)), float(seeds))

    def interval(self, method: int, *, level: float = 0.95, bounds: tuple[float, float]) -> tuple[float, float]:
        """The t interval of a method's score over rows and seeds.

        Args:
            method: which.
            level: how often such intervals hold the true score, in 0..1.
            bounds: what the metric can be at least and at most.
        """
        rows, seeds = float(self.row_covariance[method, method]), float(self.seed_parts[method])
        half = t_quantile((1 + level) / 2, self.freedom_of(rows, seeds)) * float(np.sqrt(rows + seeds))
        mean = float(self.means[method])
        return max(bounds[0], mean - half), min(bounds[1], mean + half)

    def of(self, methods: Sequence[int]) -> Self:
        """The same for some of the methods alone."""
        kept = np.asarray(methods, np.int64)
        covariance = self.row_covariance[np.ix_(kept, kept)]
        return type(self)(self.means[kept], covariance, self.seed_variance, self.seeds[kept], self.rows, self.freedom)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "means": self.means.tolist(),
            "row_covariance": self.row_covariance.tolist(),
            "seed_variance": self.seed_variance,
            "seeds": self.seeds.tolist(),
            "rows": self.rows,
            "freedom": self.freedom,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(
            np.asarray(values["means"], np.float64),
            np.asarray(values["row_covariance"], np.float64),
            float(values["seed_variance"]),
            np.asarray(values["seeds"], np.int64),
            int(values["rows"]),
            int(values["freedom"]),
        )


def gather(arms: Sequence[Arm], rows: int, *, seed: int, repeats: int | None = None) -> Evidence:
    """Weigh the methods' scores.

    Args:
        arms: the methods.
        rows: of the test split.
        seed: of the resamples.
        repeats: how many; as many as are affordable if left out: a thousand, fewer on very many rows.

    Raises:
        ValueError: if there are no rows, no methods, or no resample has all scores.
    """
    if not arms:
        raise ValueError("there are no methods to compare")
    repeats = repeats or max(FEWEST_REPEATS, min(1000, MOST_DRAWN // max(1, rows)))
    statistics = [one for arm in arms for one in arm.statistics]
    resampled = bootstrap_jointly(statistics, rows, seed=seed, repeats=repeats)
    ends = np.cumsum([len(arm.statistics) for arm in arms])
    own = np.split(resampled, ends[:-1], axis=1)
    variance, freedom = _pooled([np.asarray(arm.scores) for arm in arms if arm.random])
    covariance = np.atleast_2d(np.cov(np.stack([part.mean(axis=1) for part in own]), ddof=1))
    return Evidence(
        means=np.array([np.mean(arm.scores) for arm in arms]),
        row_covariance=_without_chance_meetings(covariance, arms, own) if freedom else covariance,
        seed_variance=variance,
        seeds=np.array([len(arm.scores) if arm.random else 0 for arm in arms], np.int64),
        rows=rows,
        freedom=freedom,
    )


def _pooled(scores: Sequence[Floats]) -> tuple[float, int]:
    """The variance within the methods, and its degrees of freedom."""
    freedom = sum(len(own) - 1 for own in scores)
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in scores)
    return (squares / freedom, freedom) if freedom else (0.0, 0)


def _without_chance_meetings(covariance: Floats, arms: Sequence[Arm], own: Sequence[Floats]) -> Floats:
    """The rows' covariance without how seeds and rows met, which the variance over seeds has in it already."""
    apart = [
        float((part - np.asarray(arm.scores)).var(axis=1, ddof=1).mean())
        if arm.random and len(arm.scores) > 1
        else None
        for arm, part in zip(arms, own, strict=True)
    ]
    usual = float(np.mean([one for one in apart if one is not None]))
    kept = covariance.copy()
    for k, (arm, one) in enumerate(zip(arms, apart, strict=True)):
        if arm.random:
            kept[k, k] = max(0.0, kept[k, k] - (usual if one is None else one) / len(arm.scores))
    return kept


def t_quantile(probability: float, freedom: float) -> float:
    """Of Student's t distribution."""
    from scipy.special import stdtrit  # its statistics package would take half a second to import

    return float(stdtrit(freedom, probability))
