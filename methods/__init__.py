"""What can be trained: one file per method.

A method is a module here that defines ``SPEC``; its file name is its name. Names are listed without
importing torch, so that a configuration can be checked in no time.
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
    """Every method's name, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def get(name: str) -> MethodSpec[Any]:
    """The method of that name.

    Raises:
        KeyError: if there is none.
    """
    if name not in names():
        raise KeyError(name)
    spec: MethodSpec[Any] = import_module(f"methods.{name}").SPEC
    return spec


def load_adapter(view: nn.Module, folder: Path, context: Context) -> Attached:
    """Rebuild a saved adapter on a fresh view; see :func:`methods._folder.load_adapter`."""
    from methods._folder import load_adapter as load

    return load(view, folder, context)
