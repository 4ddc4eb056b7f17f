"""Find out which methods work on an architecture: on the meta device, then by a dry run on a tiny model.

Names are imported at their first use: search spaces need Optuna, and the estimates, which attach methods as the probe
does, are to work without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.common.lazy_names import lazy_names

if TYPE_CHECKING:
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
_MODULES = {
    "Capability": "probe",
    "MethodConstraints": "constraints",
    "MethodPlan": "method_plan",
    "Probe": "probe",
    "apply_constraints": "constraints",
    "list_methods": "probe",
    "plan_method": "method_plan",
    "try_method": "method_plan",
}

__getattr__ = lazy_names(__name__, {name: f"{__name__}.{module}" for name, module in _MODULES.items()})
