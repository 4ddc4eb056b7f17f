"""Which methods work on which architecture: tried without weights, and then in miniature."""

from orchestrator.planning.capability.constraints import Limited, keep_within
from orchestrator.planning.capability.method_plan import MethodPlan, plan_method, try_method
from orchestrator.planning.capability.probe import Capability, Probe, catalogue

__all__ = ["Capability", "Limited", "MethodPlan", "Probe", "catalogue", "keep_within", "plan_method", "try_method"]
