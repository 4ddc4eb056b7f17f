"""The section of choice tasks, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.common.metric import Metric
from orchestrator.common.section import refusal
from orchestrator.tasks.choice.rows import answers, choices_problem, questions_and_answers
from orchestrator.tasks.class_metrics import macro_f1
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.key_groups import named_group
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.templates import Template, render, template_columns
from orchestrator.tasks.tokens import integers


def accuracy(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of rows whose most likely choice is the right one."""
    is_right = integers(predictions, "label") == integers(predictions, "predicted")
    scores: NDArray[np.float64] = is_right[draws].mean(axis=1)
    return scores


METRICS = (
    Metric(name="accuracy", label="accuracy", statistic=accuracy),
    Metric(name="macro_f1", label="macro-F1", statistic=macro_f1),
)


LAYOUTS = (("prompt", "completion"), ("messages",))
"""The keys that name the columns of each layout of rows."""


class ChoiceTask(TaskSection):
    """One of several texts per prompt: label words, multiple choice."""

    type: Literal["choice"]
    """One of several texts per prompt."""
    prompt: Template | None = None
    """Column of the prompts, or a template with columns in braces: ``Review: {text} Rating:``."""
    completion: Template | None = None
    """Column of the right choices, or a template with columns in braces."""
    messages: str | None = None
    """Column of conversations in OpenAI's layout, in place of ``prompt`` and ``completion``: the last message, which is
    the assistant's, is the right choice."""
    choices: list[str] | str
    """The texts to choose from, or the column that holds a list of them for each row."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search maximizes: a name, or a list whose first is optimized and whose others are recorded beside it.
    ``macro_f1`` needs the same choices for all rows."""

    @model_validator(mode="after")
    def _has_rows_and_choices(self) -> Self:
        named_group(self, LAYOUTS)
        if isinstance(self.choices, list) and (problem := choices_problem(self.choices)):
            raise refusal([(("choices",), problem)])
        if isinstance(self.choices, str) and "macro_f1" in self.metrics:
            raise refusal([(("metric",), "macro_f1 needs a list of choices that is the same for all rows")])
        return self

    @classmethod
    def in_memory(cls) -> Self:
        """Return the section of a task without files: prompts, right choices, and lists of choices."""
        keys = {key: key for key in ("prompt", "completion", "choices")}
        return cls.model_validate({"type": cls.type_name(), "data": "memory.jsonl", **keys})

    @property
    def input_columns(self) -> dict[str, str]:
        """``prompt`` (clients send whole ones) or ``messages``, and the choices where rows have their own."""
        prompt = "messages" if self.messages else "prompt"
        return {prompt: prompt, **({"choices": self.choices} if isinstance(self.choices, str) else {})}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns that the templates name or that of the conversations, and that of the choices."""
        named = {key: getattr(self, key) for key in ("prompt", "completion", "messages")}
        columns: dict[Key, list[str]] = {(key,): template_columns(name) for key, name in named.items() if name}
        return {**columns, **({("choices",): [self.choices]} if isinstance(self.choices, str) else {})}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``prompt`` or ``messages``, ``choices``, and the right one: ``label``; ``answer`` if choices vary."""
        if self.messages:
            answered = columns[self.messages]
            asked, completions = questions_and_answers(answered)
            prompts = {"messages": asked}
        else:
            assert self.prompt
            assert self.completion
            answered = columns[template_columns(self.completion)[-1]]
            prompts, completions = {"prompt": render(self.prompt, columns)}, render(self.completion, columns)
        if isinstance(self.choices, str):
            listed = columns[self.choices]
            return {**prompts, **answers(completions, listed.text_lists.to_pylist(), answered, listed)}
        rows = answers(completions, [self.choices] * len(answered), answered)
        return {**prompts, "choices": rows["choices"], "label": rows["answer"]}

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Return the tables, and the choices if they are the same for all rows."""
        return tables, tuple(self.choices) if isinstance(self.choices, list) else ()
