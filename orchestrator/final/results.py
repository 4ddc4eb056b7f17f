"""The results of a sweep's final: from the answers of the lanes to the outcome of a task."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from orchestrator.common.metric import Metric
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, TrialRecord
from orchestrator.planning.plan import TaskPlan
from orchestrator.selection.clusters import Clusters
from orchestrator.selection.evidence import MethodSample
from orchestrator.selection.intervals import Statistic, bootstrap_interval
from orchestrator.selection.results import MethodResult, SeedResult
from orchestrator.selection.selection import Selection
from orchestrator.tracking.registry import Registered

log = logging.getLogger(__name__)

Role = Literal["champion", "best", "default"]
"""Role of a configuration in the final: the recommended one, the best of another method, or the recommended method with
its default parameters."""
TEST_FILE = "test.parquet"
UNTUNED = "the untuned backbone"
"""Name of the baseline that is the model before any training."""


class AnswerReader:
    """Builds the results of one task from the answers of the lanes and the predictions that they stored.

    Args:
        task: plan of the task.
        storage: storage of the sweep's folder, which holds the predictions.
        seed: seed of the bootstrap resamples.
    """

    def __init__(self, task: TaskPlan, storage: Storage, *, seed: int) -> None:
        self._task, self._storage, self._seed = task, storage, seed
        self._type = replace(task.type, labels=task.data.labels, constants=task.data.constants)
        self._predictions: dict[str, pa.Table] = {}
        self.metric = task.type.optimized

    def method_result(
        self, record: TrialRecord, answers: Mapping[int | None, Answer], *, reason: str = "", note: str = ""
    ) -> MethodResult | None:
        """Return the result of a configuration; ``None`` where no answer holds a score.

        Args:
            record: trial with the configuration.
            answers: answers by retraining, ``None`` for the trial's own checkpoint.
            reason: why the method did not pass the screening.
            note: what went wrong with it.
        """
        seeds = [
            self._seed_result(seed, answer, answer.checkpoint, record)
            for seed, answer in answers.items()
            if answer.status == "done" and answer.checkpoint
        ]
        return MethodResult.of_seeds(record, seeds, self.metric, reason=reason, note=note) if seeds else None

    @property
    def other_metrics(self) -> tuple[Metric, ...]:
        """The task's metrics beside the optimized one."""
        return tuple(map(self._task.type.metric, self._task.data.config.metrics[1:]))

    def statistic(self, checkpoint: str, metric: Metric | None = None) -> Statistic:
        """Return the function that scores resamples of a checkpoint's predictions, by default in the task's metric.

        It takes samples of the :meth:`rows` of the file: a conversation that is several samples is drawn as a whole.
        """
        name, predictions = (metric or self.metric).name, self.predictions(checkpoint)
        return _clusters(predictions).statistic(partial(self._task.type.score_many, name, predictions))

    def rows(self, checkpoint: str) -> int:
        """Return how many rows of the file a checkpoint's predictions are of."""
        return _clusters(self.predictions(checkpoint)).count

    def trivial_samples(self, checkpoint: str) -> dict[str, MethodSample]:
        """Return what the task's trivial predictors score on the test rows, by what they do.

        Args:
            checkpoint: any checkpoint that was scored, for the rows.
        """
        table, type_ = self.predictions(checkpoint), self._type
        all_rows, samples = np.arange(table.num_rows)[None], {}
        for predictor in type_.trivial_predictors(self._task.data.splits, table):
            scored = predictor.statistic(partial(type_.score_many, self.metric.name))
            try:
                score = float(scored(all_rows)[0])
            except ValueError as error:  # a metric that refuses such answers, which nobody then has to beat
                log.warning("%s has no %s: %s", predictor.name, self.metric.name, error)
                continue
            if math.isfinite(score):
                samples[predictor.name] = MethodSample((score,), (_clusters(table).statistic(scored),), random=False)
        return samples

    def untuned_sample(self, checkpoint: str) -> dict[str, MethodSample]:
        """Return what the untuned backbone scores on the test rows, by its name."""
        table = self.predictions(checkpoint)
        score = float(self._type.score(self.metric.name, table))
        sample = MethodSample((score,), (self.statistic(checkpoint),), random=False)
        return {UNTUNED: sample} if math.isfinite(score) else {}

    def predictions(self, checkpoint: str) -> pa.Table:
        """Return what a checkpoint predicted for every test row; read once."""
        if checkpoint not in self._predictions:
            self._predictions[checkpoint] = read_predictions(self._storage, checkpoint)
        return self._predictions[checkpoint]

    def _seed_result(self, seed: int | None, answer: Answer, checkpoint: str, record: TrialRecord) -> SeedResult:
        own_value = record.value if seed is None else answer.validation.get(self.metric.name, float("nan"))
        return SeedResult(
            seed=seed,
            checkpoint_score=answer.metrics[self.metric.name],
            interval=bootstrap_interval(self.statistic(checkpoint), self.rows(checkpoint), seed=self._seed),
            validation=own_value,
            metrics=answer.metrics,
            measurements=answer.measurements,
            checkpoint=checkpoint,
            step=answer.step,
            constant=self._type.constant_answer(self.predictions(checkpoint)),
        )


def _clusters(predictions: pa.Table) -> Clusters:
    return Clusters.of(predictions["row"].to_numpy())


def read_predictions(storage: Storage, checkpoint: str) -> pa.Table:
    """Return what a checkpoint predicted for every test row.

    Args:
        storage: storage of the sweep's folder.
        checkpoint: folder of the checkpoint, relative to the sweep's folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        storage.download(f"{checkpoint}/{TEST_FILE}", Path(folder) / TEST_FILE)
        return parquet.read_table(Path(folder) / TEST_FILE)


@dataclass
class TaskOutcome:
    """The outcome of a sweep for one task.

    Args:
        plan: plan of the task.
        selection: the chosen method with its evidence.
        records: all trials of the task.
        untuned: result of the recommended method with its default parameters; ``None`` where it was not scored.
        samples: what the finalists wrote for a few test rows; see :mod:`orchestrator.final.samples`.
        registered: name, version and alias in the registry, once the champion is registered.
        unregistered: why it is not registered.
        notes: what else went wrong after the selection, a line each.
    """

    plan: TaskPlan
    selection: Selection
    records: tuple[TrialRecord, ...]
    untuned: MethodResult | None = None
    samples: Sequence[Mapping[str, Any]] = ()
    registered: Registered | None = None
    unregistered: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def champion(self) -> MethodResult:
        """Result of the recommended method."""
        return self.selection.winner

    @property
    def tied(self) -> list[MethodResult]:
        """Results of the methods that may be the best, the champion first."""
        return [self.selection.result(method) for method in self.selection.tied]

    def results(self) -> list[tuple[Role, MethodResult]]:
        """Return all results with their roles: the champion, the other methods best first, the champion untuned."""
        sign, champion = self.selection.metric.sign, self.champion
        others = [result for result in self.selection.scored if result is not champion]
        others.sort(key=lambda result: -sign * result.mean_score)
        scored: list[tuple[Role, MethodResult]] = [("champion", champion), *(("best", result) for result in others)]
        return [*scored, ("default", self.untuned)] if self.untuned else scored

    def record(self, result: MethodResult) -> TrialRecord:
        """Return the trial with a result's configuration."""
        return next(record for record in self.records if record.key == result.key)

    def trials_of(self, method: str) -> int:
        """Return how many trials a method had."""
        return sum(record.key.method == method for record in self.records)
