"""The uncertainty of the scores of several methods together, over test rows and seeds.

A method's score is the mean over its retrainings, each with its own seed, on the same test rows. Rows and seeds are
both samples:

- *Rows* are resampled jointly for all methods and seeds, so that rows that are hard for every method do not count as
  a difference between methods. The spread of the means gives the covariance over rows.
- *Seeds* vary each method independently. Three seeds estimate a variance poorly, so it is pooled over the methods.

A retraining's score varies over seeds because of the seed itself and because of the interaction of seed and rows. The
interaction is contained in both parts; it is estimated from the resamples, in which seeds diverge, and removed from
the covariance over rows.
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
class MethodSample:
    """The sample of one method in the comparison.

    Args:
        scores: score of each retraining on the test split.
        statistics: the same scores as functions of resampled rows.
        random: whether another seed could have given another score; ``False`` for a method that does not train.
    """

    scores: tuple[float, ...]
    statistics: tuple[Statistic, ...]
    random: bool = True


@dataclass(frozen=True)
class Evidence:
    """The mean scores of the methods with their covariance.

    Args:
        means: mean scores over the seeds, shape ``(methods,)``.
        row_covariance: covariance of the means over rows, shape ``(methods, methods)``.
        seed_variance: variance of one retraining over seeds, pooled over the methods.
        seeds: retrainings behind each mean, shape ``(methods,)``; 0 where nothing is random.
        rows: rows of the test split.
        freedom: degrees of freedom of the seed variance; 0 where no method was retrained.
    """

    means: Floats
    row_covariance: Floats
    seed_variance: float
    seeds: NDArray[np.int64]
    rows: int
    freedom: int

    @property
    def seed_parts(self) -> Floats:
        """The contribution of the seeds to the variance of each mean, shape ``(methods,)``."""
        parts: Floats = np.where(self.seeds > 0, self.seed_variance / np.maximum(self.seeds, 1), 0.0)
        return parts

    @property
    def covariance(self) -> Floats:
        """Covariance of the means over rows and seeds, shape ``(methods, methods)``."""
        total: Floats = self.row_covariance + np.diag(self.seed_parts)
        return total

    def freedom_of(self, rows: float, seeds: float) -> float:
        """Return the degrees of freedom of a variance that is the sum of both parts (Satterthwaite, 1946)."""
        if rows + seeds <= 0:
            return max(1.0, self.rows - 1.0)
        weights = rows**2 / max(1, self.rows - 1) + (seeds**2 / self.freedom if self.freedom else 0.0)
        return max(1.0, (rows + seeds) ** 2 / weights) if weights > 0 else max(1.0, self.rows - 1.0)

    def contrast(self, first: int, second: int) -> tuple[float, float]:
        """Return the standard error of the difference between two means, and its degrees of freedom."""
        covariance = self.row_covariance
        rows = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
        seeds = self.seed_parts[first] + self.seed_parts[second] if first != second else 0.0
        return float(np.sqrt(max(0.0, rows + seeds))), self.freedom_of(max(0.0, float(rows)), float(seeds))

    def interval(self, method: int, *, level: float = 0.95, bounds: tuple[float, float]) -> tuple[float, float]:
        """Return the t interval of a method's score over rows and seeds.

        Args:
            method: index of the method.
            level: coverage of the interval, in 0..1.
            bounds: lowest and highest value of the metric.
        """
        rows, seeds = float(self.row_covariance[method, method]), float(self.seed_parts[method])
        half = t_quantile((1 + level) / 2, self.freedom_of(rows, seeds)) * float(np.sqrt(rows + seeds))
        mean = float(self.means[method])
        return max(bounds[0], mean - half), min(bounds[1], mean + half)

    def of(self, methods: Sequence[int]) -> Self:
        """Return the evidence about some of the methods, by their indices."""
        indices = np.asarray(methods, np.int64)
        covariance = self.row_covariance[np.ix_(indices, indices)]
        means, seeds = self.means[indices], self.seeds[indices]
        return type(self)(means, covariance, self.seed_variance, seeds, self.rows, self.freedom)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
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
        """Return the evidence that :meth:`to_dict` has described."""
        return cls(
            np.asarray(values["means"], np.float64),
            np.asarray(values["row_covariance"], np.float64),
            float(values["seed_variance"]),
            np.asarray(values["seeds"], np.int64),
            int(values["rows"]),
            int(values["freedom"]),
        )


def gather(samples: Sequence[MethodSample], rows: int, *, seed: int, repeats: int | None = None) -> Evidence:
    """Estimate the covariance of the methods' scores.

    Args:
        samples: samples of the methods.
        rows: rows of the test split.
        seed: seed of the resamples.
        repeats: number of resamples; a thousand if left out, fewer on very many rows, where they take too long.

    Raises:
        ValueError: if there are no rows, no methods, or no resample has all scores.
    """
    if not samples:
        raise ValueError("there are no methods to compare")
    repeats = repeats or max(FEWEST_REPEATS, min(1000, MOST_DRAWN // max(1, rows)))
    statistics = [statistic for sample in samples for statistic in sample.statistics]
    resampled = bootstrap_jointly(statistics, rows, seed=seed, repeats=repeats)
    ends = np.cumsum([len(sample.statistics) for sample in samples])
    by_method = np.split(resampled, ends[:-1], axis=1)
    variance, freedom = _pooled_variance([np.asarray(sample.scores) for sample in samples if sample.random])
    covariance = np.atleast_2d(np.cov(np.stack([scores.mean(axis=1) for scores in by_method]), ddof=1))
    return Evidence(
        means=np.array([np.mean(sample.scores) for sample in samples]),
        row_covariance=_without_interaction(covariance, samples, by_method) if freedom else covariance,
        seed_variance=variance,
        seeds=np.array([len(sample.scores) if sample.random else 0 for sample in samples], np.int64),
        rows=rows,
        freedom=freedom,
    )


def _pooled_variance(scores: Sequence[Floats]) -> tuple[float, int]:
    """Return the variance within the methods, and its degrees of freedom."""
    freedom = sum(len(seeds) - 1 for seeds in scores)
    squares = sum(float(((seeds - seeds.mean()) ** 2).sum()) for seeds in scores)
    return (squares / freedom, freedom) if freedom else (0.0, 0)


def _without_interaction(covariance: Floats, samples: Sequence[MethodSample], resampled: Sequence[Floats]) -> Floats:
    """Return the covariance over rows without the interaction of seeds and rows.

    The variance over seeds contains the interaction already.
    """
    interactions = [
        float((scores - np.asarray(sample.scores)).var(axis=1, ddof=1).mean())
        if sample.random and len(sample.scores) > 1
        else None
        for sample, scores in zip(samples, resampled, strict=True)
    ]
    typical = float(np.mean([value for value in interactions if value is not None]))
    corrected = covariance.copy()
    for k, (sample, interaction) in enumerate(zip(samples, interactions, strict=True)):
        if sample.random:
            share = (typical if interaction is None else interaction) / len(sample.scores)
            corrected[k, k] = max(0.0, corrected[k, k] - share)
    return corrected


def t_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution."""
    from scipy.special import stdtrit  # its statistics package would take half a second to import

    return float(stdtrit(freedom, probability))
