"""Find out which methods work on an architecture: on the meta device, then by a dry run on a tiny model."""

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
