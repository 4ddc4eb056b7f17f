"""What a sweep.yaml may say, validated once; importing it loads no machine-learning library."""

from orchestrator.config.gpu import GpuSettings
from orchestrator.config.load import config_of, json_schema, load_config
from orchestrator.config.overrides import Choices, Fixed, Override, Range
from orchestrator.config.sections import (
    BackboneConfig,
    Budget,
    Lanes,
    MLflowConfig,
    SearchConfig,
    SweepConfig,
    Training,
)
from orchestrator.config.tasks import Task

__all__ = [
    "BackboneConfig",
    "Budget",
    "Choices",
    "Fixed",
    "GpuSettings",
    "Lanes",
    "MLflowConfig",
    "Override",
    "Range",
    "SearchConfig",
    "SweepConfig",
    "Task",
    "Training",
    "config_of",
    "json_schema",
    "load_config",
]
