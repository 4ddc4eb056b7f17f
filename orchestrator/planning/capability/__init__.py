"""Which methods work on which architecture: tried without weights, and then in miniature."""

from orchestrator.planning.capability.constraints import MethodConstraints, apply_constraints
from orchestrator.planning.capability.method_plan import MethodPlan, plan_method, try_method
from orchestrator.planning.capability.probe import Capability, Probe, list_methods

__all__ = [
    "Capability",
    "MethodConstraints",
    "MethodPlan",
    "Probe",
    "apply_constraints",
    "list_methods",
    "plan_method",
    "try_method",
]
