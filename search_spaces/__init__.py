"""Search spaces: one file per method, with the same names and families as in ``methods``.

A plugin's search space is in the plugin; it can import ``SearchSpace`` and ``training`` from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces._base import SearchSpace
    from search_spaces._training import training

__all__ = ["SearchSpace", "get", "training"]


def get(name: str) -> SearchSpace:
    """Return the search space of a method.

    Args:
        name: A method, a plugin, ``peft:TYPE`` or ``compose:PART+PART``.

    Raises:
        KeyError: If the method has no search space.
    """
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        space: SearchSpace = import_module(FAMILIES[family]).space(member)
        return space
    for package in ("search_spaces", PLUGINS):
        try:
            space = import_module(f"{package}.{name}").SPACE
        except ModuleNotFoundError as error:
            if error.name not in (package, f"{package}.{name}"):
                raise
            continue
        return space
    raise KeyError(name)


PLUGINS = "method_plugins"
"""The package that plugins are registered in; each module has its search space beside its method."""
FAMILIES = {"compose": "search_spaces._compose", "peft": "search_spaces._peft_type"}


def __getattr__(name: str) -> Any:
    """Import on access what needs Optuna, so that ``import search_spaces`` stays fast."""
    modules = {"SearchSpace": "search_spaces._base", "training": "search_spaces._training"}
    if name not in modules:
        raise AttributeError(f"module 'search_spaces' has no attribute {name!r}")
    return getattr(import_module(modules[name]), name)
