"""What trials will take, before any of them is trained: memory from the architecture alone, and seconds."""

from orchestrator.planning.estimates.memory import peak_bytes
from orchestrator.planning.estimates.model import StepModel
from orchestrator.planning.estimates.step import Batch, StepCost
from orchestrator.planning.estimates.throughput import DeviceThroughput

__all__ = ["Batch", "DeviceThroughput", "StepCost", "StepModel", "peak_bytes"]
