"""Allocation rules: which method gets the next piece of work.

A rule is a file of this package with a subclass of :class:`Allocation`. Its ``name`` is what a configuration calls it,
as in ``search.allocation: race``; nothing else needs to know of it.
"""

from __future__ import annotations

from importlib import import_module
from inspect import isclass
from pkgutil import iter_modules

from orchestrator.search.allocation._base import Allocation, Arm, Elimination
from orchestrator.search.allocation.race import Race
from orchestrator.search.allocation.turns import Equal, RoundRobin

__all__ = ["ALLOCATIONS", "Allocation", "Arm", "Elimination", "Equal", "Race", "RoundRobin"]


def _rules() -> dict[str, type[Allocation]]:
    """Return the rules that the files of this package define, by name."""
    names = [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]
    modules = [import_module(f"{__name__}.{name}") for name in sorted(names)]
    return {
        rule.name: rule
        for module in modules
        for rule in vars(module).values()
        if isclass(rule) and issubclass(rule, Allocation) and rule.__module__ == module.__name__
    }


ALLOCATIONS = _rules()
"""The rules by their names in a configuration."""
