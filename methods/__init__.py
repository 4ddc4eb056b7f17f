"""What can be trained: one file per method.

A method is a module here that defines ``SPEC``; its file name is its name. Two families hold many under one file:
``peft:TYPE`` is any type of the installed `peft`, ``compose:PART+PART`` is several methods on one view. A plugin is a
file from outside that :func:`register` makes known. Names are checked without importing torch, so that a
configuration can be read in no time.

What a plugin builds on can be imported from here: the contract (``MethodSpec``, ``Hyperparameters``, ``Attached`` and
what belongs to them), and the tools of the built-in methods (``attached``, ``blocks``, ``targets``, ``train_head``).
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from methods.plugins.loader import load as _load_plugin
from methods.plugins.loader import register

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from methods.base.architecture import blocks, targets
    from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec, ParameterGroup
    from methods.base.trainable import attached, train_head

__all__ = [
    "Attached",
    "Category",
    "Context",
    "Hyperparameters",
    "MethodError",
    "MethodSpec",
    "ParameterGroup",
    "attached",
    "blocks",
    "get",
    "load_adapter",
    "names",
    "register",
    "targets",
    "train_head",
]
FAMILIES = {"peft": "methods.families.peft_type", "compose": "methods.families.compose"}
_TOOLS = {
    "methods.base.architecture": ("blocks", "targets"),
    "methods.base.spec": (
        *("Attached", "Category", "Context", "Hyperparameters"),
        *("MethodError", "MethodSpec", "ParameterGroup"),
    ),
    "methods.base.trainable": ("attached", "train_head"),
}


@cache
def names() -> tuple[str, ...]:
    """The name of every method that has a file of its own, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg))


def get(name: str) -> MethodSpec[Any]:
    """The method of that name.

    Raises:
        KeyError: if there is none.
        MethodError: if it is of a family, and cannot be.
    """
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        spec: MethodSpec[Any] = import_module(FAMILIES[family]).spec(member)
        return spec
    module = import_module(f"methods.{name}") if name in names() else _load_plugin(name)
    spec = module.SPEC
    return spec


def load_adapter(view: nn.Module, folder: Path, context: Context) -> Attached:
    """Rebuild a saved adapter on a fresh view; see :func:`methods.base.adapter_folder.load_adapter`."""
    from methods.base.adapter_folder import load_adapter as load

    return load(view, folder, context)


def __getattr__(name: str) -> Any:
    """What importing it would import torch for."""
    for module, tools in _TOOLS.items():
        if name in tools:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'methods' has no attribute {name!r}")
