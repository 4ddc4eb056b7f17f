"""The section of token-classification tasks, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.common.metric import Metric
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.key_groups import named_group
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.token_classification.rows import encode_tags, from_spans, from_tokens


def entity_f1(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 2 tp / (true + predicted) over the entities of all rows of a sample: seqeval's micro F1."""
    correct, true, predicted = (
        predictions[name].to_numpy()[draws].sum(axis=1)
        for name in ("correct_entities", "entities", "predicted_entities")
    )
    scores: NDArray[np.float64] = 2 * correct / np.maximum(true + predicted, 1)
    return scores


def token_accuracy(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of words with the right tag."""
    correct, words = (predictions[name].to_numpy()[draws].sum(axis=1) for name in ("correct_words", "words"))
    scores: NDArray[np.float64] = correct / np.maximum(words, 1)
    return scores


METRICS = (
    Metric(name="entity_f1", label="entity F1", statistic=entity_f1),
    Metric(name="token_accuracy", label="token accuracy", statistic=token_accuracy),
)


LAYOUTS = (("tokens", "tags"), ("text", "spans"))
"""The keys that name the columns of each layout of rows."""


class TokenClassificationTask(TaskSection):
    """One tag per word: entities, parts of speech."""

    type: Literal["token-classification"]
    """One tag per word."""
    tokens: str | None = None
    """Column of the words, a list per row; with ``tags``."""
    tags: str | None = None
    """Column of the tags, one per word: ``B-X``, ``I-X`` and ``O``, or plain names."""
    text: str | None = None
    """Column of the texts; with ``spans``, in place of ``tokens`` and ``tags``."""
    spans: str | None = None
    """Column of the entities in a text: a list of ``{start, end, label}``, in characters from 0 on."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search maximizes: a name, or a list whose first is optimized and whose others are recorded beside it."""

    @model_validator(mode="after")
    def _has_one_layout(self) -> Self:
        named_group(self, LAYOUTS)
        return self

    @classmethod
    def in_memory(cls) -> Self:
        """Return the section of a task without files: words and their tags."""
        values = {"type": cls.type_name(), "data": "memory.jsonl", "tokens": "tokens", "tags": "tags"}
        return cls.model_validate(values)

    @property
    def input_columns(self) -> dict[str, str]:
        """The column of the words, or of the texts."""
        return {"tokens": self.tokens} if self.tokens is not None else {"text": self.text or ""}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns of words and tags, or of texts and spans."""
        named = {key: getattr(self, key) for key in ("tokens", "tags", "text", "spans")}
        return {(key,): [column] for key, column in named.items() if column is not None}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``tokens`` or ``text``, and the words' ``tags`` as texts."""
        if self.tokens is not None and self.tags is not None:
            return from_tokens(columns[self.tokens], columns[self.tags])
        assert self.text is not None
        assert self.spans is not None
        return from_spans(columns[self.text], columns[self.spans])

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Replace tags by indices into the tags of all splits."""
        return encode_tags(tables, files["train"], f"{key}.{'tags' if self.tags else 'spans'}")
