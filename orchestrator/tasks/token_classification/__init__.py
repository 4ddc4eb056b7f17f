"""One tag per word: entities, parts of speech."""

from orchestrator.tasks.token_classification.section import TokenClassificationTask
from orchestrator.tasks.token_classification.task_type import TokenClassification

__all__ = ["TokenClassification", "TokenClassificationTask"]
