"""Rows in, tokens and a metric out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.config import CausalLMTask, Task
from orchestrator.tasks._base import Evaluation, TaskType
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tasks.classification import Classification
from orchestrator.tasks.data import TaskData, read_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TASK_TYPES", "CausalLM", "Classification", "Evaluation", "TaskData", "TaskType", "read_task", "task_type"]

TASK_TYPES: dict[str, TaskType] = {"classification": Classification(), "causal-lm": CausalLM()}
"""Every type of task, by its name in the configuration."""


def task_type(config: Task, tokenizer: PreTrainedTokenizerBase | None = None) -> TaskType:
    """What a task of this configuration does with rows and models.

    Args:
        config: what the sweep says of the task.
        tokenizer: needed only where text is generated.
    """
    if isinstance(config, CausalLMTask):
        return CausalLM(config.metric == "exact_match", config.max_new_tokens, tokenizer)
    return Classification()
