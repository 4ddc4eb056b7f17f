"""How a method did on the test split: each checkpoint that was scored, and the method over all its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialKey, TrialRecord


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One checkpoint, scored once on the test split.

    Args:
        seed: number of the retraining, counted from 0; ``None`` for the trial's own checkpoint.
        checkpoint_score: the task's metric on the test split.
        interval: 95 % bootstrap interval over the test rows; it does not cover other seeds.
        validation: the same metric on the validation split.
        metrics: all metrics of the task on the test split.
        measurements: trainable parameters, bytes, seconds and the like.
        checkpoint: folder of the checkpoint, relative to the sweep's folder.
        step: optimizer steps that it was trained for.
        constant: what it answers, if it answers every test row alike; empty if it does not.
    """

    seed: int | None
    checkpoint_score: float
    interval: tuple[float, float]
    validation: float
    metrics: dict[str, float]
    measurements: dict[str, float]
    checkpoint: str
    step: int = 0
    constant: str = ""


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """A method's best configuration, scored on the test split.

    The method is judged by its mean over the seeds. One checkpoint is kept, registered and reproduced: that of the
    seed with the best score on *validation*. Choosing it by its test score would make that score too good.

    Args:
        method: name of the method.
        trial: ``task/method/number`` of the configuration.
        mean_score: mean of the task's metric over the seeds.
        checkpoint_score: the kept checkpoint's own score; NaN where a journal did not record it.
        interval: 95 % interval of the mean score, over test rows and seeds; over rows alone where there is one score.
        seed_scores: score of each seed.
        validation: score of the trial on the validation split, by which the search chose it.
        measurements: medians over the seeds, and ``seed_spread``, the standard deviation of their scores.
        pareto: whether no scored method is better in one of score, size, memory and latency, and as good in the others.
        gap: lower bound of the distance to the best method, in units of the metric; ``None`` for a tied method, and
            for one that did not pass the screening.
        tied: whether it may be the best method, at the 95 % level.
        reason: why it did not pass the validation screening; empty for a finalist.
        note: what went wrong with it.
        cut: whether it passed the screening, and was cut by the cap on the number of finalists.
        undecided: whether it is behind, by no more than what more trials may bring it.
        probability: that an exhaustive search without noise would find no other method better; ``None`` in journals
            of earlier releases.
        trials: trials of the method that came to the last rung.
        collapsed_seeds: seeds that answer every test row alike.
        baseline_lead: by how much it is better than the best trivial predictor, and the lower bound of that; ``None``
            where there is no such predictor, and in journals of earlier releases.
        other_scores: mean over the seeds, and lower and upper end of its 95 % interval, by metric, of the metrics that
            are listed beside the task's.
        seeds: results of the seeds; empty where the result was read from a journal, which has them as events.
        checkpoint: the kept one of ``seeds``; ``None`` where there are none.
    """

    method: str
    trial: str
    mean_score: float
    interval: tuple[float, float]
    seed_scores: tuple[float, ...]
    validation: float
    measurements: Mapping[str, float]
    checkpoint_score: float = math.nan
    pareto: bool = False
    gap: float | None = None
    tied: bool = False
    reason: str = ""
    note: str = ""
    cut: bool = False
    undecided: bool = False
    probability: float | None = None
    trials: int = 0
    collapsed_seeds: int = 0
    baseline_lead: tuple[float, float] | None = None
    other_scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seeds: tuple[SeedResult, ...] = field(default=(), compare=False)
    checkpoint: SeedResult | None = field(default=None, compare=False)

    @classmethod
    def of_seeds(
        cls, record: TrialRecord, seeds: Sequence[SeedResult], metric: Metric, *, reason: str = "", note: str = ""
    ) -> Self:
        """Return the result of a configuration before it is compared with others.

        Args:
            record: trial with the configuration.
            seeds: results of its checkpoints, at least one.
            metric: the task's metric.
            reason: why the method did not pass the screening.
            note: what went wrong with it.
        """
        scores = tuple(result.checkpoint_score for result in seeds)
        kept = max(seeds, key=lambda result: metric.sign * result.validation)
        return cls(
            method=record.key.method,
            trial=str(record.key),
            mean_score=statistics.mean(scores),
            checkpoint_score=kept.checkpoint_score,
            interval=kept.interval,
            seed_scores=scores,
            validation=record.value,
            measurements=_median_measurements(seeds),
            reason=reason,
            note=note,
            seeds=tuple(seeds),
            checkpoint=kept,
            collapsed_seeds=sum(bool(seed.constant) for seed in seeds),
        )

    @property
    def beats_baseline(self) -> bool:
        """Whether it is better than the best trivial predictor; also where there is none."""
        return self.baseline_lead is None or self.baseline_lead[1] > 0

    @property
    def collapse(self) -> str:
        """How many of its seeds answer every test row alike, a clause; empty if none does."""
        if not self.collapsed_seeds:
            return ""
        seeds = len(self.seed_scores)
        count = f"{self.collapsed_seeds} of {seeds} seeds gave" if seeds > 1 else "gave"
        return f"{count} every row the same answer"

    @property
    def is_constant(self) -> bool:
        """Whether all seeds answer every test row alike, and with the same answer."""
        return len({seed.constant for seed in self.seeds}) == 1 and bool(self.seeds[0].constant)

    @property
    def key(self) -> TrialKey:
        """The trial with the configuration."""
        return TrialKey.parse(self.trial)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the results of the seeds."""
        return {name: _plain(getattr(self, name)) for name in _RECORDED}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the result that JSON values describe."""
        low, high = values["interval"]
        score, lead = values.get("checkpoint_score"), values.get("baseline_lead")
        return cls(
            **{
                **values,
                "interval": (low, high),
                "seed_scores": tuple(values["seed_scores"]),
                "checkpoint_score": math.nan if score is None else score,
                "baseline_lead": None if lead is None else (lead[0], lead[1]),
            }
        )


def outcome(result: Mapping[str, Any], recommended: str) -> str:
    """Return how a method came out of its sweep, for the cell of a table.

    Args:
        result: values of :meth:`MethodResult.to_dict`; those of earlier releases have fewer.
        recommended: name of the recommended method.
    """
    if result["method"] == recommended:
        lead = result.get("baseline_lead")
        return "closest, not shown to be better than the baseline" if lead and lead[1] <= 0 else "recommended"
    if result["tied"]:
        return "tied"
    if result.get("undecided"):
        return "undecided: more trials may bring it ahead"
    if result.get("cut"):
        return "cut by the cap on finalists"
    gap = result.get("gap")
    return "eliminated on validation" if gap is None else f"at least {gap:.3f} worse"


_RECORDED = tuple(entry.name for entry in fields(MethodResult) if entry.name not in ("seeds", "checkpoint"))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _median_measurements(seeds: Sequence[SeedResult]) -> dict[str, float]:
    names = dict.fromkeys(name for result in seeds for name in result.measurements)
    medians = {
        name: statistics.median(result.measurements[name] for result in seeds if name in result.measurements)
        for name in names
    }
    if len(seeds) == 1:
        return medians
    return {**medians, "seed_spread": float(np.std([result.checkpoint_score for result in seeds], ddof=1))}
