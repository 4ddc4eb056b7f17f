"""Task types: rows in; tokens, a loss, scores and answers out.

Each type is one file beside this one, with its section of the configuration, its metrics and its class, or a folder
of them where one file would be long; ``registry.py`` lists the types. Importing this package loads neither torch nor
transformers.
"""

from orchestrator.tasks._base import TaskType
from orchestrator.tasks.contract.scoring import Evaluation
from orchestrator.tasks.data import TaskData, read_task
from orchestrator.tasks.registry import TASK_TYPES, TaskTypeName, recorded_metric, task_type
from orchestrator.tasks.section import TaskSection

__all__ = [
    "TASK_TYPES",
    "Evaluation",
    "TaskData",
    "TaskSection",
    "TaskType",
    "TaskTypeName",
    "read_task",
    "recorded_metric",
    "task_type",
]
