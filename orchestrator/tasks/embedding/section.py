"""The section of embedding tasks, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import model_validator

from orchestrator.common.metric import Metric
from orchestrator.common.section import refusal
from orchestrator.tasks.columns import Column
from orchestrator.tasks.embedding.metrics import MRR, NDCG_AT_10, RECALL_AT_1, RECALL_AT_10
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.regression_metrics import SPEARMAN
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.templates import Template, render, template_columns

RETRIEVAL = (NDCG_AT_10, RECALL_AT_1, RECALL_AT_10, MRR)
METRICS = (*RETRIEVAL, SPEARMAN)
SCORED = "has_scores"
"""The constant of tasks whose pairs have scores."""
TEXTS = ("anchor", "positive", "negative")


class EmbeddingTask(TaskSection):
    """A vector for every text: pairs of texts that belong together, or pairs with a score."""

    type: Literal["embedding"]
    """A vector for every text: pairs of texts that belong together, or pairs with a score."""
    anchor: Template
    """Column of the texts that are searched with, or a template with columns in braces: ``query: {question}``."""
    positive: Template
    """Column of the texts that are to be found, or a template; with ``score``, of the second text of each pair."""
    negative: Template | None = None
    """Column of texts that are not to be found for the anchor, or a template."""
    score: str | None = None
    """Column of numbers that say how similar anchor and positive are; higher is more similar, in any unit."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search maximizes: a name, or a list whose first is optimized and whose others are recorded beside it.
    Pairs with a score are scored by ``spearman``."""

    @model_validator(mode="before")
    @classmethod
    def _score_pairs_by_rank(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("score") is not None:
            return {"metric": SPEARMAN.name, **values}
        return values

    @model_validator(mode="after")
    def _keys_go_together(self) -> EmbeddingTask:
        if self.score is not None and self.negative is not None:
            raise refusal([(("negative",), "cannot stand beside score; leave out one of them")])
        known = {metric.name for metric in METRICS}
        possible = [metric.name for metric in metrics_of(self.score is not None)]
        if wrong := [name for name in self.metrics if name in known and name not in possible]:
            rows = "with" if self.score is not None else "without"
            raise refusal(
                [(("metric",), f"{wrong[0]!r} is not for pairs {rows} score; choose from {', '.join(possible)}")]
            )
        return self

    @property
    def input_columns(self) -> dict[str, str]:
        """``text``: a client sends whole texts of either side, not the columns of a template."""
        return {"anchor": "text"}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns that the templates name, and that of the scores."""
        texts: dict[Key, list[str]] = {
            (key,): template_columns(template) for key in TEXTS if (template := getattr(self, key)) is not None
        }
        return texts if self.score is None else {**texts, ("score",): [self.score]}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``anchor`` and ``positive``, and ``negative`` or ``score`` where the task has them."""
        texts = {key: render(template, columns) for key in TEXTS if (template := getattr(self, key)) is not None}
        return texts if self.score is None else {**texts, "score": columns[self.score].numbers}

    def constants(self, train: pa.Table) -> dict[str, float]:
        """Return that pairs have scores, by which a model's metrics are chosen."""
        return {} if self.score is None else {SCORED: 1.0}


def metrics_of(has_scores: bool) -> tuple[Metric, ...]:
    """Return the metrics of pairs with or without scores."""
    return (SPEARMAN,) if has_scores else RETRIEVAL
