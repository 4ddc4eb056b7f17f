"""Fine-tuning methods: one file per method.

- A module of this folder that defines ``SPEC`` is a method; the file's name is the method's name.
- ``families/`` holds the names that stand for many methods: ``peft:TYPE`` is any type of the installed `peft`, and
  ``compose:PART+PART`` is several methods on one backbone.
- ``base/`` holds the contract (``base/spec.py``) and the tools that any method may need.
- ``parts/`` holds building blocks of single methods and of groups of methods.
- ``plugins/`` loads and checks methods from files outside this package, which :func:`register` announces.

A plugin imports what it needs from here: the contract (``MethodSpec``, ``Hyperparameters``, ``Attached``, ``Context``,
``ParameterGroup``, ``Category``, ``MethodError``), and the tools of the built-in methods (``attached``, ``blocks``,
``targets``, ``train_head``).

Names are looked up without importing torch, so that a configuration is checked quickly.
"""

from __future__ import annotations

import pkgutil
from dataclasses import replace
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
_LAZY_NAMES = {
    "methods.base.architecture": ("blocks", "targets"),
    "methods.base.spec": (
        *("Attached", "Category", "Context", "Hyperparameters"),
        *("MethodError", "MethodSpec", "ParameterGroup"),
    ),
    "methods.base.trainable": ("attached", "train_head"),
}


@cache
def names() -> tuple[str, ...]:
    """Return the sorted names of the methods that have a file in this folder."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg))


def get(name: str) -> MethodSpec[Any]:
    """Return the specification of a built-in method, a member of a family or a plugin.

    Raises:
        KeyError: if no method has that name.
        MethodError: if the name belongs to a family that refuses it.
    """
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        spec: MethodSpec[Any] = import_module(FAMILIES[family]).spec(member)
        return spec
    module = import_module(f"methods.{name}") if name in names() else _load_plugin(name)
    spec = module.SPEC
    return spec


def load_adapter(view: nn.Module, folder: Path, context: Context) -> Attached:
    """Rebuild a saved adapter on a fresh view; needs neither Ray nor MLflow.

    Args:
        view: a view of the backbone that the adapter was trained on.
        folder: the folder that ``Attached.save`` wrote; :mod:`methods.base.adapter_folder` describes it.
        context: the view's context. ``context.original`` is not called: a method that trained backbone weights reads
            them from the folder.

    Raises:
        MethodError: if the folder holds no adapter, an adapter of another task type, or one of an unknown method.
    """
    from methods.base.adapter_folder import read_method, stored_tensor
    from methods.base.spec import MethodError

    record = read_method(folder)
    if record["task"] != context.task:
        raise MethodError(f"{folder} was trained for {record['task']} and cannot do {context.task}")
    try:
        spec = get(record["method"])
    except KeyError as error:
        raise MethodError(f"{folder} names an unknown method {record['method']!r}") from error
    context = replace(context, fresh=False)
    if spec.needs_original:
        context = replace(context, original=lambda name: stored_tensor(folder, name))
    attached = spec.attach(view, spec.params_type.from_dict(record["params"]), context)
    attached.load(folder)
    return attached


def __getattr__(name: str) -> Any:
    """Import a name of the plugin interface on first use, since its module imports torch."""
    for module, module_names in _LAZY_NAMES.items():
        if name in module_names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'methods' has no attribute {name!r}")
