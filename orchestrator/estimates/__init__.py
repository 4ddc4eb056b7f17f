"""What trials will take, before any of them is trained: memory from the architecture alone, and seconds."""

from orchestrator.estimates.memory import peak_bytes
from orchestrator.estimates.model import StepModel
from orchestrator.estimates.seconds import Rates
from orchestrator.estimates.step import Batch, StepCost

__all__ = ["Batch", "Rates", "StepCost", "StepModel", "peak_bytes"]
