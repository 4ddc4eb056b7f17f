"""A vector for every text."""

from orchestrator.tasks.embedding.section import EmbeddingTask
from orchestrator.tasks.embedding.task_type import Embedding

__all__ = ["Embedding", "EmbeddingTask"]
