"""The list of task types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from orchestrator.common.metric import Direction, Metric
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tasks.choice import Choice
from orchestrator.tasks.classification import Classification
from orchestrator.tasks.embedding import Embedding
from orchestrator.tasks.regression import Regression
from orchestrator.tasks.seq2seq import Seq2Seq
from orchestrator.tasks.token_classification import TokenClassification
from orchestrator.tasks.user_metric import module_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from orchestrator.tasks._base import TaskType
    from orchestrator.tasks.section import TaskSection

TASK_TYPES: dict[str, TaskType] = {
    type_.name: type_
    for type_ in (
        Classification(),
        Regression(),
        CausalLM(),
        Seq2Seq(),
        TokenClassification(),
        Choice(),
        Embedding(),
    )
}
"""Every task type by its name in the configuration, in the order in which messages list them."""


def task_type(
    config: TaskSection,
    tokenizer: PreTrainedTokenizerBase | None = None,
    labels: tuple[str, ...] = (),
    constants: Mapping[str, float] | None = None,
) -> TaskType:
    """Return the type of a configured task, ready to score by the task's metrics.

    Args:
        config: The task's section of the configuration.
        tokenizer: Decodes what is generated; needed only where text is generated.
        labels: Names of the task's labels; needed only to score and to answer.
        constants: Numbers of the task; needed by types that have some.
    """
    type_ = TASK_TYPES[config.type]
    return type_.configured(config.metrics, config.generated_tokens, tokenizer, labels, config.sampled, constants)


def recorded_metric(name: str, *, higher_is_better: bool) -> Metric:
    """Return the metric that a journal, a bundle or a version's tags record by its name and direction.

    Records of other releases may hold a metric that no task type has; its label is its name, and it has no statistic.
    """
    bounds = (0.0, 1.0 if higher_is_better else float("inf"))
    if module_of(name):  # a user's own, of any range
        bounds = (-float("inf"), float("inf"))
    direction: Direction = "maximize" if higher_is_better else "minimize"
    recorded = Metric(name=name, direction=direction, bounds=bounds, label=name)
    metrics = (metric for type_ in TASK_TYPES.values() for metric in type_.metrics)
    return next((metric for metric in metrics if metric == recorded), recorded)


def _require_known(name: str) -> str:
    if name not in TASK_TYPES:
        raise ValueError(f"unknown task type {name!r}; known: {', '.join(TASK_TYPES)}")
    return name


TaskTypeName = Annotated[str, AfterValidator(_require_known)]
"""The name of a task type, in a pydantic model."""
