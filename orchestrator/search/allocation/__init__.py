"""Which method gets the next trial."""

from __future__ import annotations

from orchestrator.search.allocation._base import Allocation, Arm, Rank
from orchestrator.search.allocation.race import Race
from orchestrator.search.allocation.turns import Equal, RoundRobin

__all__ = ["ALLOCATIONS", "Allocation", "Arm", "Equal", "Race", "Rank", "RoundRobin"]

ALLOCATIONS: dict[str, type[Allocation]] = {"race": Race, "round_robin": RoundRobin, "equal": Equal}
"""By the names that a configuration gives them."""
