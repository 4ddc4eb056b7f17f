"""Methods from outside: Python files that somebody names, each known by its stem.

A plugin is a module of the package ``method_plugins``, which has no folder: a registered source is its module, and
so is a file of that name in a folder ``method_plugins`` on the path, which is how a registered model carries its
plugins. Nothing here imports torch, and registering a file does not run it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE = "method_plugins"
_SOURCES: dict[str, str] = {}


def register(file: Path) -> str:
    """Make the method of a Python file known under the file's stem.

    Raises:
        ValueError: if it cannot be a plugin; one clear line, without the file's name.
    """
    if problem := plugin_problem(file):
        raise ValueError(problem)
    register_source(file.stem, file.read_text(encoding="utf-8"))
    return file.stem


def register_source(name: str, source: str) -> None:
    """Make the method of a plugin's text known, instead of what had its name before."""
    if _SOURCES.get(name) != source:
        sys.modules.pop(f"{PACKAGE}.{name}", None)
        _SOURCES[name] = source


def source_of(name: str) -> str | None:
    """The text of a plugin, if there is one of that name in this process."""
    if name not in _SOURCES and name.isidentifier():
        found = _Plugins().find_spec(f"{PACKAGE}.{name}")
        return Path(found.origin).read_text(encoding="utf-8") if found and found.origin else None
    return _SOURCES.get(name)


def load(name: str) -> ModuleType:
    """The module of a plugin.

    Raises:
        KeyError: if there is none of that name.
    """
    if not name.isidentifier():
        raise KeyError(name)
    try:
        return import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{PACKAGE}.{name}":
            raise
        raise KeyError(name) from error


def plugin_problem(file: Path) -> str:
    """Why a file cannot be a plugin, as far as reading it tells; nothing of it is run."""
    from methods import names

    if file.suffix != ".py" or not file.stem.isidentifier():
        return "is no Python file whose name can be a method's; write letters, digits and _ before .py"
    if file.stem in names() or file.stem.startswith("_"):
        return f"{file.stem} is the name of a built-in method; give the file another name"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except SyntaxError as error:
        return f"line {error.lineno} is no Python: {error.msg}"
    except ValueError as error:
        return f"is no text in UTF-8 ({error})"
    missing = [name for name in ("SPEC", "SPACE") if name not in _assigned(tree)]
    return f"defines no {' and no '.join(missing)}; a plugin defines SPEC and SPACE" if missing else ""


def _assigned(tree: ast.Module) -> set[str]:
    """The names that a module assigns to."""
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


class _Plugins(MetaPathFinder, InspectLoader):
    """Finds the package, and in it what is registered or on the path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != PACKAGE:
            return None
        if not name or name in _SOURCES:
            return spec_from_loader(fullname, self, is_package=not name)
        return PathFinder.find_spec(fullname, [str(Path(folder) / PACKAGE) for folder in sys.path])

    def get_source(self, fullname: str) -> str:
        return _SOURCES.get(fullname.partition(".")[2], "")

    def get_code(self, fullname: str) -> CodeType:
        name = fullname.partition(".")[2]
        code: CodeType = compile(self.get_source(fullname), f"{name}.py", "exec", dont_inherit=True)
        return code

    def is_package(self, fullname: str) -> bool:
        return fullname == PACKAGE


sys.meta_path.insert(0, _Plugins())
