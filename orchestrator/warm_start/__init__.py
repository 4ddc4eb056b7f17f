"""Begin where earlier sweeps ended: their best configurations are tried early.

Nothing else of them is used. Their scores are of other tasks and have another scale, so they never reach a sampler;
what is borrowed is trained and judged like anything else, is a third of a study's trials at most, and is given up once
too much of it falls behind the defaults at the first rung.
"""

from orchestrator.warm_start.find import prior_of
from orchestrator.warm_start.prior import EVENT, Origin, Prior, Transferred
from orchestrator.warm_start.task_metadata import TaskMetadata, task_metadata, typical_characters

__all__ = ["EVENT", "Origin", "Prior", "TaskMetadata", "Transferred", "prior_of", "task_metadata", "typical_characters"]
