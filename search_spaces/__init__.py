"""What to try: one file per method, with the same names and families as in ``methods``.

A plugin's search space is in the plugin. What it builds on can be imported from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces._base import SearchSpace
    from search_spaces._training import training

__all__ = ["SearchSpace", "get", "training"]


def get(name: str) -> SearchSpace:
    """The search space of the method of that name.

    Raises:
        KeyError: if there is none.
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
"""The package of methods from outside: each module there has its search space beside its method."""
FAMILIES = {"compose": "search_spaces._compose", "peft": "search_spaces._peft_type"}


def __getattr__(name: str) -> Any:
    """What importing it would import Optuna for."""
    places = {"SearchSpace": "search_spaces._base", "training": "search_spaces._training"}
    if name not in places:
        raise AttributeError(f"module 'search_spaces' has no attribute {name!r}")
    return getattr(import_module(places[name]), name)
