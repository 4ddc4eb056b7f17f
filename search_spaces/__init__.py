"""What to try: one file per method, with the same names and families as in ``methods``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces._base import SearchSpace

__all__ = ["get"]


def get(name: str) -> SearchSpace:
    """The search space of the method of that name.

    Raises:
        KeyError: if there is none.
    """
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        space: SearchSpace = import_module(FAMILIES[family]).space(member)
        return space
    try:
        space = import_module(f"search_spaces.{name}").SPACE
    except ModuleNotFoundError as error:
        raise KeyError(name) from error
    return space


FAMILIES = {"compose": "search_spaces._compose", "peft": "search_spaces._peft_type"}
