"""Keep a method within what a sweep allows: its default at the start, and every proposal later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from methods.base.spec import MethodError
from orchestrator.common.errors import first_line
from orchestrator.config.constraints import Constraint
from orchestrator.planning.capability.method_plan import MethodPlan
from orchestrator.planning.capability.probe import Probe
from orchestrator.planning.capability.restrict_space import corners, repaired
from search_spaces._base import SearchSpace

Params = Mapping[str, Any]


@dataclass(frozen=True)
class MethodConstraints:
    """The constraints of a sweep on one method's configurations, as the search asks for them.

    Args:
        probe: of the backbone and the type of task.
        method: its name.
        constraints: what no configuration may exceed.
    """

    probe: Probe
    method: str
    constraints: Sequence[Constraint]

    def needs(self, params: Params) -> Mapping[str, float]:
        """What a configuration needs; the adapter's bytes to the byte where they are bound and within the limit.

        Raises:
            MethodError: if that cannot be told without the backbone's weights.
        """
        most = next((one.most for one in self.constraints if one.quantity == "adapter"), -1.0)
        return self.probe.needs(self.method, params, most)

    def __call__(self, params: Params) -> tuple[float, ...]:
        """By how much of itself each limit is exceeded; at most 0 where it is kept."""
        try:
            needs = self.needs(params)
        except MethodError:
            return tuple(math.inf for _ in self.constraints)
        return tuple(needs[one.quantity] / one.most - 1 if one.most else math.inf for one in self.constraints)

    def allows(self, params: Params) -> bool:
        """Whether every limit is kept."""
        return all(excess <= 0 for excess in self(params))

    def refusal(self, params: Params, thoroughly: bool = False) -> str:
        """Which limit a configuration exceeds and by what it would take, one line; empty where it keeps all."""
        try:
            needs = self.needs(params)
        except MethodError as error:
            return f"what it needs cannot be told beforehand: {first_line(error, 'no reason given')}"
        over = [one for one in self.constraints if needs[one.quantity] > one.most]
        told = [f"{one.quantity} is {one.told(needs[one.quantity])}, more than {one.told(one.most)}" for one in over]
        return " and ".join(told) or self.probe.refusal(self.method, params, thoroughly)


def apply_constraints(plan: MethodPlan, limited: MethodConstraints) -> MethodPlan:
    """The plan of a method whose default keeps the limits.

    Args:
        plan: of a method that works here.
        limited: the limits.

    Returns:
        The same plan; or one that starts from a smaller configuration, with a note on each value that changed; or that
        of a method that is left out, since not even its smallest configuration will do.
    """
    if not plan.available or limited.allows(plan.space.default):
        return plan
    default = plan.space.default
    start = repaired(plan.space, default, (), limited.refusal) or _small(plan.space, limited)
    if start is None:
        return replace(plan, available=False, reason=limited.refusal(_smallest(plan.space, limited)))
    why = limited.refusal(default)
    changed = [name for name in start if start[name] != default[name]]
    notes = tuple(f"{name} starts at {start[name]} instead of {default[name]}: {why}" for name in changed)
    space = replace(plan.space, default=start)
    found = asdict(limited.probe.capability(plan.method, start))
    return replace(plan, **found, space=space, notes=(*plan.notes, *notes))


def _small(space: SearchSpace, limited: MethodConstraints) -> dict[str, Any] | None:
    """The smallest configuration, with as many of the default's values as the limits allow."""
    params = _smallest(space, limited)
    if limited.refusal(params, True):
        return None
    for name, value in space.default.items():
        if not limited.refusal({**params, name: value}, False):
            params[name] = value
    return params


def _smallest(space: SearchSpace, limited: MethodConstraints) -> dict[str, Any]:
    """Each parameter in turn at the end or choice that exceeds the limits least."""
    params = dict(space.default)
    for name, distribution in space.distributions.items():
        options = [{**params, name: value} for value in corners(distribution)]
        params = min([params, *options], key=lambda option: max(limited(option)))
    return params
