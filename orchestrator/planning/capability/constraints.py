"""Apply a sweep's constraints to a method's default configuration, and to those that the search proposes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from methods.base.spec import MethodError
from orchestrator.common.errors import first_line
from orchestrator.config.constraints import Constraint
from orchestrator.planning.capability.method_plan import MethodPlan
from orchestrator.planning.capability.probe import Probe
from orchestrator.planning.capability.restrict_space import extremes, nearest_working
from search_spaces._base import SearchSpace

Params = Mapping[str, Any]


class Room(Protocol):
    """The memory that a lane's device has for trials."""

    def excess(self, method: str, params: Params) -> float:
        """Return by which fraction of the room a configuration exceeds it; at most 0 if it fits."""
        ...

    def refusal(self, method: str, params: Params) -> str:
        """Return why a configuration does not fit, one line; empty if it does."""
        ...


@dataclass(frozen=True)
class MethodConstraints:
    """Checks configurations of one method against the sweep's constraints; the search calls it to get violations.

    Args:
        probe: probe of the backbone and the task type.
        method: the method's name.
        constraints: upper limits on what a configuration requires.
        room: memory of the lanes' device; ``None`` if it limits no configuration of the method.
    """

    probe: Probe
    method: str
    constraints: Sequence[Constraint]
    room: Room | None = None

    def requirements(self, params: Params) -> Mapping[str, float]:
        """Return what a configuration requires, by quantity.

        The adapter is written to disk to measure its size, which takes time, only if the sweep limits that size and the
        trained tensors alone do not exceed the limit. Otherwise ``adapter`` is the bytes of the trained tensors.

        Raises:
            MethodError: if that is unknown without the backbone's weights.
        """
        limit = next((limit.most for limit in self.constraints if limit.quantity == "adapter"), -1.0)
        return self.probe.requirements(self.method, params, limit)

    def __call__(self, params: Params) -> tuple[float, ...]:
        """Return the excess over each limit as a fraction of the limit; at most 0 where the limit is satisfied."""
        excess = () if self.room is None else (self.room.excess(self.method, params),)
        return (*self._excess_of_constraints(params), *excess)

    def _excess_of_constraints(self, params: Params) -> tuple[float, ...]:
        if not self.constraints:
            return ()
        try:
            requirements = self.requirements(params)
        except MethodError:
            return tuple(math.inf for _ in self.constraints)
        return tuple(
            requirements[limit.quantity] / limit.most - 1 if limit.most else math.inf for limit in self.constraints
        )

    def allows(self, params: Params) -> bool:
        """Return whether a configuration satisfies all limits."""
        return all(excess <= 0 for excess in self(params))

    def refusal(self, params: Params, thoroughly: bool = False) -> str:
        """Return why a configuration cannot be used, one line; empty if it satisfies the limits and works.

        Args:
            params: the configuration.
            thoroughly: whether to include a dry run.
        """
        try:
            requirements = self.requirements(params) if self.constraints else {}
        except MethodError as error:
            return f"its requirements are unknown before training: {first_line(error, 'no reason given')}"
        exceeded = [limit for limit in self.constraints if requirements[limit.quantity] > limit.most]
        reasons = [
            f"{limit.quantity} is {limit.format(requirements[limit.quantity])}, more than {limit.format(limit.most)}"
            for limit in exceeded
        ]
        if self.room and (reason := self.room.refusal(self.method, params)):
            reasons.append(reason)
        return " and ".join(reasons) or self.probe.refusal(self.method, params, thoroughly)


def apply_constraints(plan: MethodPlan, constraints: MethodConstraints) -> MethodPlan:
    """Return a method's plan with a default configuration that satisfies the constraints.

    Args:
        plan: plan of a method that works on the backbone.
        constraints: the constraints on its configurations.

    Returns:
        The same plan if its default satisfies them; else one that starts from a smaller configuration, with a note on
        each changed value; else, if even the smallest configuration does not, the plan of a method that is left out.
    """
    if not plan.available or constraints.allows(plan.space.default):
        return plan
    default = plan.space.default
    start = nearest_working(plan.space, default, (), constraints.refusal) or _reduced_default(plan.space, constraints)
    if start is None:
        return replace(plan, available=False, reason=constraints.refusal(_smallest(plan.space, constraints)))
    reason = constraints.refusal(default)
    changed = [name for name in start if start[name] != default[name]]
    notes = tuple(f"{name} starts at {start[name]} instead of {default[name]}: {reason}" for name in changed)
    space = replace(plan.space, default=start)
    capability = asdict(constraints.probe.capability(plan.method, start))
    return replace(plan, **capability, space=space, notes=(*plan.notes, *notes))


def _reduced_default(space: SearchSpace, constraints: MethodConstraints) -> dict[str, Any] | None:
    """Return the smallest configuration with as many of the default's values as the limits allow, if any works."""
    params = _smallest(space, constraints)
    if constraints.refusal(params, True):
        return None
    for name, value in space.default.items():
        if not constraints.refusal({**params, name: value}, False):
            params[name] = value
    return params


def _smallest(space: SearchSpace, constraints: MethodConstraints) -> dict[str, Any]:
    """Return the configuration in which each parameter in turn has the end or choice that exceeds the limits least."""
    params = dict(space.default)
    for name, distribution in space.distributions.items():
        options = [{**params, name: value} for value in extremes(distribution)]
        params = min([params, *options], key=lambda option: max(constraints(option)))
    return params
