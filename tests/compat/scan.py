"""Find what our source uses of other libraries beyond their public interface.

Reading the syntax trees finds private names; importing the packages finds overridden methods. A private name that a
program builds as a string is not found. Types are not known here, so any private name that a file does not define
itself is reported.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "methods", "search_spaces")
LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "cmaes",
    "greenlet",
    "mlflow",
    "optuna",
    "peft",
    "ray",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
"""Whose classes are subclassed. Pydantic, Typer and PyYAML are used as their documentation says."""
DEEP = 3
"""Names below a library's own: ``peft.tuners.lora.Linear`` is imported from so deep that releases move it."""
PATCHED_ATTRIBUTES = {"forward", "get_state_buffer", "__class__"}
SET_BY_METACLASSES = {"_abc_impl", "_backward_cls"}
ENVIRONMENT_NAME = re.compile(r"(RAY|TUNE|TRANSFORMERS|HF|MLFLOW|TOKENIZERS|BNB|TORCH|PYTORCH|CUDA|NCCL)_\w+")
PYTHON_PROTOCOL = re.compile(r"__(?!torch_)\w+__")
MADE_FOR_SUBCLASSES = {
    "torch.nn.modules.module.Module.forward",
    "torch.nn.modules.linear.Linear.forward",
    "torch.nn.modules.linear.Linear.extra_repr",
    "torch.autograd.function._SingleLevelFunction.forward",
    "torch.autograd.function._SingleLevelFunction.backward",
    "torch.Tensor.__torch_function__",  # which torch sets itself in a class with __torch_dispatch__
}
"""What torch documents as the way to write a layer or an operator."""


class Use(NamedTuple):
    """Something of a library that a file of ours uses and that the library does not promise to keep.

    Args:
        file: path below the root of the project.
        name: ``_private_attribute``, ``library._module.Name``, ``library.module.Class.method``, ``=patched_attribute``,
            ``logger:name`` or the name of an environment variable.
    """

    file: str
    name: str


def source_files() -> Iterator[tuple[str, ast.Module]]:
    """Yield the path and the syntax tree of every source file."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def private_uses() -> set[Use]:
    """Return every private name of a library that our source imports, reads, sets or names in a string.

    A name that is imported from a module deep inside one of :data:`LIBRARIES` counts as private.
    """
    return {Use(file, name) for file, tree in source_files() for name in private_names(tree)}


def private_names(tree: ast.Module) -> set[str]:
    """Return the private names in one file that neither the file itself nor a package of ours defines."""
    defined = set(_defined_names(tree))
    names = set(_private_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in defined:
            if not (isinstance(node.value, ast.Name) and node.value.id in sys.stdlib_module_names):  # os._exit
                names.add(node.attr)
        elif isinstance(node, ast.Call) and _called_name(node) in ("getattr", "setattr", "hasattr", "delattr"):
            strings = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            names.update(name for name in strings if is_private(name) and name not in defined)
    return names


def patches() -> set[Use]:
    """Return every method or class of an object that our source replaces while the program runs, as ``=name``."""
    return {Use(file, f"={name}") for file, tree in source_files() for name in _patched_names(tree)}


def _patched_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in PATCHED_ATTRIBUTES:
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("patch.object"):
            target, name = node.args[:2]
            yield f"{ast.unparse(target)}.{ast.literal_eval(name)}"


def is_private(name: str) -> bool:
    """Return whether a name begins with an underscore and is no ``__protocol__`` name of Python."""
    return name.startswith("_") and name.strip("_") != "" and not (name.startswith("__") and name.endswith("__"))


def _private_imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, *rest = name.split(".")
            ours = root in (*PACKAGES, *sys.stdlib_module_names)
            deep = root in LIBRARIES and isinstance(node, ast.ImportFrom) and len(rest) >= DEEP
            if deep or (not ours and any(map(is_private, rest))):
                yield name


def _defined_names(tree: ast.Module) -> Iterator[str]:
    """Yield functions, classes, fields, module-level names and attributes that a file sets on ``self`` or ``cls``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            yield from (alias.asname or alias.name for alias in node.names)


def _called_name(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def logger_names() -> set[Use]:
    """Return every logger of a library that our source sets the level of, as ``logger:name``."""
    return {
        Use(file, f"logger:{ast.literal_eval(node.args[0])}")
        for file, tree in source_files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _called_name(node) == "getLogger"
        if node.args and isinstance(node.args[0], ast.Constant)
    }


def environment_names() -> set[Use]:
    """Return every environment variable of a library that our source names in a string."""
    return {
        Use(file, node.value)
        for file, tree in source_files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ENVIRONMENT_NAME.fullmatch(node.value)
    }


def overrides() -> set[Use]:
    """Return every attribute of a library's class that a class of ours defines anew; Python's own protocols aside."""
    names = {Use(file, name) for file, kind in our_classes() for name in overridden(kind)}
    return {use for use in names if use.name not in MADE_FOR_SUBCLASSES}


def overridden(kind: type) -> Iterator[str]:
    """Yield what a class of ours overrides, as ``library.module.Class.name``."""
    bases = [base for base in kind.__mro__[1:] if base.__module__.split(".")[0] in LIBRARIES]
    for name in vars(kind).keys() - SET_BY_METACLASSES:
        base = next((base for base in bases if name in vars(base)), None)
        if base and not PYTHON_PROTOCOL.fullmatch(name):
            yield f"{base.__module__}.{base.__qualname__}.{name}"


@functools.cache
def our_classes() -> tuple[tuple[str, type], ...]:
    """Return every class of our packages with the path of its file."""
    return tuple(
        (Path(str(module.__file__)).relative_to(ROOT).as_posix(), kind)
        for module in _our_modules()
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    )


def _our_modules() -> Iterator[ModuleType]:
    for package in map(importlib.import_module, PACKAGES):
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                yield importlib.import_module(info.name)
