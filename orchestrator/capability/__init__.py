"""Which methods work on which architecture: tried without weights, and then in miniature."""

from orchestrator.capability._limited import Limited, keep_within
from orchestrator.capability._method_plan import MethodPlan, plan_method, try_method
from orchestrator.capability._probe import Capability, Probe, catalogue

__all__ = ["Capability", "Limited", "MethodPlan", "Probe", "catalogue", "keep_within", "plan_method", "try_method"]
