"""Start a sweep from earlier ones: their best configurations are tried early.

Nothing else of earlier sweeps is used. Their scores belong to other tasks and have another scale, so they never reach a
sampler. Transferred configurations are trained and compared like any others, are at most a third of a study's trials,
and are given up once too many of them fall behind the defaults at the first rung.
"""

from orchestrator.warm_start.find import prior_of
from orchestrator.warm_start.prior import EVENT, Origin, Prior, Transferred
from orchestrator.warm_start.task_metadata import TaskMetadata, task_metadata, typical_characters

__all__ = ["EVENT", "Origin", "Prior", "TaskMetadata", "Transferred", "prior_of", "task_metadata", "typical_characters"]
