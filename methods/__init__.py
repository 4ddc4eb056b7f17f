"""What can be trained: one file per method.

A method is a module here that defines ``SPEC``; its file name is its name. Two families hold many under one file:
``peft:TYPE`` is any type of the installed `peft`, ``compose:PART+PART`` is several methods on one view. Names are
checked without importing torch, so that a configuration can be read in no time.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from methods._base import Attached, Context, MethodSpec

__all__ = ["get", "load_adapter", "names"]


@cache
def names() -> tuple[str, ...]:
    """The name of every method that has a file of its own, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def get(name: str) -> MethodSpec[Any]:
    """The method of that name.

    Raises:
        KeyError: if there is none.
    """
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        spec: MethodSpec[Any] = import_module(FAMILIES[family]).spec(member)
        return spec
    if name not in names():
        raise KeyError(name)
    spec = import_module(f"methods.{name}").SPEC
    return spec


FAMILIES = {"peft": "methods._peft_type", "compose": "methods._compose"}


def load_adapter(view: nn.Module, folder: Path, context: Context) -> Attached:
    """Rebuild a saved adapter on a fresh view; see :func:`methods._folder.load_adapter`."""
    from methods._folder import load_adapter as load

    return load(view, folder, context)
