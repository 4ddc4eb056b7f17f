"""Estimate memory and time of trials before training, from the architecture and the speed of this machine."""

from orchestrator.planning.estimates.memory import peak_bytes
from orchestrator.planning.estimates.model import StepModel
from orchestrator.planning.estimates.step import Batch, StepCost
from orchestrator.planning.estimates.throughput import DeviceThroughput

__all__ = ["Batch", "DeviceThroughput", "StepCost", "StepModel", "peak_bytes"]
