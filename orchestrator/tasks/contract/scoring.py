"""How a task type scores predictions, and what they are held against."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.batches import Batches
from orchestrator.tasks.contract.rows import Rows
from orchestrator.tasks.text_metrics import texts as text_pairs
from orchestrator.tasks.trivial import TrivialPredictor
from orchestrator.tasks.user_metric import module_of, user_metric

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.common.metric import Metric
    from orchestrator.tasks.class_report import ClassReport, RowErrors


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a split.

    Args:
        metrics: Score by metric.
        predictions: One line per row in the split's order, with the row's number in ``row`` and the columns that the
            metrics are computed from.
    """

    metrics: dict[str, float]
    predictions: pa.Table


@dataclass(frozen=True)
class Scoring(Rows):
    """From a model and rows to predictions, their scores, and reports on them.

    Args:
        chosen: Names of the metrics that the task is scored by, the optimized one first; none before it is configured.
        generates: Whether ``evaluate`` generates text, for the metrics that need it.
    """

    chosen: tuple[str, ...] = ()
    generates: bool = False
    metrics: ClassVar[tuple[Metric, ...]]
    """What it can be scored by, the default first."""
    reproducible_name: ClassVar[str] = "probability"
    """What one number of :meth:`reproducible` is, with its unit."""
    baseline_metric: ClassVar[str] = "accuracy"
    """The metric of :meth:`baseline`."""
    baseline_name: ClassVar[str] = "majority class"
    """What the baseline answers for every row, as messages name it."""

    def metric(self, name: str) -> Metric:
        """Return the metric of that name.

        Raises:
            ValueError: If the type has none.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        if module_of(name):
            return user_metric(name, self.compared, needs_generation=self.writes_text)
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(metric.name for metric in self.metrics)}")

    @property
    def writes_text(self) -> bool:
        """Whether a metric of the user's own compares generated texts."""
        return any(metric.needs_generation for metric in self.metrics)

    @property
    def optimized(self) -> Metric:
        """The metric that the search optimizes."""
        return self.metric(self.chosen[0] if self.chosen else self.metrics[0].name)

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that ``evaluate`` computes: all that need no generation, and the chosen ones if it generates."""
        known = [metric for metric in self.metrics if metric.name in self.chosen or not metric.needs_generation]
        known += [self.metric(name) for name in self.chosen if module_of(name)]
        return tuple(metric for metric in known if self.generates or not metric.needs_generation)

    @abstractmethod
    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the predictions that :class:`Evaluation` holds, of the rows of the batches in the table's order."""

    def evaluate(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> Evaluation:
        """Score a model on the rows of the batches; its training mode is left unchanged.

        Raises:
            ValueError: If the type generates and has no tokenizer.
        """
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        return Evaluation({metric.name: self.score(metric.name, predictions) for metric in self.computed}, predictions)

    def score(self, metric: str, predictions: pa.Table) -> float:
        """Return a metric of the predictions."""
        return float(self.score_many(metric, predictions, np.arange(predictions.num_rows)[None])[0])

    def score_many(self, metric: str, predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return a metric of many samples of the predictions.

        Args:
            metric: Name of the metric.
            predictions: Predictions as :class:`Evaluation` holds them.
            draws: Row indices of shape ``(samples, rows)``.

        Returns:
            Scores of shape ``(samples,)``.

        Raises:
            ValueError: If the type has no such metric, or the predictions do not hold what it is computed from.
        """
        statistic = self.metric(metric).statistic
        if statistic is None:
            raise ValueError(f"metric {metric!r} has no statistic to compute it by")
        return statistic(predictions, draws)

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return what a metric of the user's own compares: a prediction and a reference for each row.

        A type that generates compares texts; where rows have several references, a row's reference is their list.

        Raises:
            ValueError: If the type gives such metrics nothing to compare, or no text was generated.
        """
        if not self.writes_text:
            raise ValueError(f"{self.name} tasks have no metrics of a file; choose one of theirs")
        several = "references" in predictions.column_names
        pairs = list(text_pairs(predictions, "of a file"))
        return [text for text, _ in pairs], [row if several else row[0] for _, row in pairs]

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return predictions of a split's rows that are all right, as far as :meth:`compared` reads them.

        A metric is tried on them before anything is trained.
        """
        texts = rows[self.text_columns[-1]]
        return pa.table({"row": rows["row"], "generated": texts, "reference": texts})

    def baseline(self, splits: Mapping[str, pa.Table]) -> float | None:
        """Return the :attr:`baseline_metric` of one answer to all test rows; ``None`` where there is no such answer."""
        return None

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return what answers the test rows without reading them; a method that is not better has learned nothing.

        Args:
            splits: The task's split tables.
            predictions: A model's predictions of the test split, whose answers are replaced.
        """
        return ()

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return what a model answers, if it answers every row alike; empty if it does not."""
        return ""

    @abstractmethod
    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the numbers that must be the same when a model predicts again; shape ``(rows, numbers)``."""

    def answered(self, predictions: pa.Table) -> list[Any] | None:
        """Return the label or labels, or the number of the choice, of each row; ``None`` where a type has none."""
        return None

    def class_report(self, predictions: pa.Table) -> ClassReport | None:
        """Return how a model does on each class; ``None`` where rows have no classes, or each has its own."""
        return None

    def row_errors(self, predictions: pa.Table) -> RowErrors | None:
        """Return how wrong a model is about each row; ``None`` where a type has no such number."""
        return None
