"""One method on one task: whether it takes part, and where it is searched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import methods
import search_spaces
from orchestrator.common.errors import Problem
from orchestrator.planning.capability.probe import Capability, Probe
from orchestrator.planning.capability.restrict_space import Fit, fit, repaired
from search_spaces._base import SearchSpace


@dataclass(frozen=True, kw_only=True)
class MethodPlan(Capability):
    """A method's part in a sweep.

    Args:
        space: where it is searched on this backbone: what that allows of the method's space with the configuration's
            overrides.
        notes: what was cut off its space, one line each.
    """

    space: SearchSpace
    notes: tuple[str, ...] = ()


def try_method(probe: Probe, method: str) -> tuple[Capability, Mapping[str, Any]]:
    """Try a method in its default configuration, or in the nearest that works where that one is too large.

    Returns:
        What was found, and the configuration.
    """
    space = search_spaces.get(method)
    found = probe.capability(method, space.default)
    if found.available or probe.task not in methods.get(method).tasks:
        return found, space.default
    nearest = repaired(space, space.default, (), lambda params, thorough: probe.refusal(method, params, thorough))
    return (found, space.default) if nearest is None else (probe.capability(method, nearest), nearest)


def plan_method(
    probe: Probe, method: str, space: SearchSpace, overridden: Collection[str]
) -> tuple[MethodPlan, list[Problem]]:
    """Try a method at every end of its search space.

    Args:
        probe: of the backbone and the type of task.
        method: its name.
        space: its search space with the configuration's overrides.
        overridden: the parameters that the configuration overrides.

    Returns:
        The plan, and what was asked for that cannot be.
    """
    usual = search_spaces.get(method).default
    known = Capability.of(methods.get(method), probe.task)
    if not known.available:
        return MethodPlan(**asdict(known), space=space), []

    def refusal(params: Mapping[str, Any], thoroughly: bool) -> str:
        return probe.refusal(method, params, thoroughly)

    fitted = fit(space, usual, frozenset(overridden), refusal)
    problems = [Problem(f"search_space.{method}.{name}", line) for name, line in fitted.problems]
    return _plan(probe, known, fitted), problems


def _plan(probe: Probe, known: Capability, fitted: Fit) -> MethodPlan:
    found = probe.capability(known.method, fitted.space.default)
    return MethodPlan(**asdict(found), space=fitted.space, notes=fitted.notes)
