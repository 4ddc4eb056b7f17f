"""One of several texts per prompt."""

from orchestrator.tasks.choice.section import ChoiceTask
from orchestrator.tasks.choice.task_type import Choice

__all__ = ["Choice", "ChoiceTask"]
