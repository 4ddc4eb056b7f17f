"""The plan of one method for one task: whether it can train the task, and its search space there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import methods
import search_spaces
from orchestrator.common.errors import Problem
from orchestrator.planning.capability.probe import Capability, Probe
from orchestrator.planning.capability.restrict_space import RestrictedSpace, nearest_working, restrict_space
from search_spaces._base import SearchSpace


@dataclass(frozen=True, kw_only=True)
class MethodPlan(Capability):
    """The plan of a method in a sweep.

    Args:
        space: search space with the configuration's overrides, restricted to what works on the backbone.
        notes: restrictions of the space, one line each.
    """

    space: SearchSpace
    notes: tuple[str, ...] = ()


def try_method(probe: Probe, method: str) -> tuple[Capability, Mapping[str, Any]]:
    """Try a method in its default configuration, or in the nearest one that works if the default is too large.

    Returns:
        The capability, and the configuration that was tried.
    """
    space = search_spaces.get(method)
    capability = probe.capability(method, space.default)
    if capability.available or probe.kind.peft_task_type not in methods.get(method).tasks:
        return capability, space.default
    nearest = nearest_working(
        space, space.default, (), lambda params, thorough: probe.refusal(method, params, thorough)
    )
    return (capability, space.default) if nearest is None else (probe.capability(method, nearest), nearest)


def plan_method(
    probe: Probe, method: str, space: SearchSpace, overridden: Collection[str]
) -> tuple[MethodPlan, list[Problem]]:
    """Try a method at every end of its search space, and plan it with the part of the space that works.

    Args:
        probe: probe of the backbone and the task type.
        method: the method's name.
        space: its search space with the configuration's overrides.
        overridden: parameters that the configuration overrides.

    Returns:
        The plan, and a problem for each override that does not work.
    """
    original_default = search_spaces.get(method).default
    capability = Capability.of(methods.get(method), probe.kind)
    if not capability.available:
        return MethodPlan(**asdict(capability), space=space), []

    def refusal(params: Mapping[str, Any], thoroughly: bool) -> str:
        return probe.refusal(method, params, thoroughly)

    idle = methods.get(method).without_effect(probe.context)
    restricted = restrict_space(_without(space, idle), original_default, frozenset(overridden) - idle, refusal)
    if named := sorted(idle & frozenset(overridden)):
        note = f"{' and '.join(named)} {'have' if len(named) > 1 else 'has'} no effect on {probe.kind.name} tasks"
        restricted = replace(restricted, notes=(*restricted.notes, note))
    problems = [Problem(f"search_space.{method}.{name}", line) for name, line in restricted.problems]
    return _plan_of_space(probe, method, restricted), problems


def _without(space: SearchSpace, names: Collection[str]) -> SearchSpace:
    """Return a space without the parameters of these names, which stay at the method's own defaults."""
    if not names:
        return space
    distributions, default = (
        {name: value for name, value in part.items() if name not in names}
        for part in (space.distributions, space.default)
    )
    return replace(space, distributions=distributions, default=default)


def _plan_of_space(probe: Probe, method: str, restricted: RestrictedSpace) -> MethodPlan:
    capability = probe.capability(method, restricted.space.default)
    return MethodPlan(**asdict(capability), space=restricted.space, notes=restricted.notes)
