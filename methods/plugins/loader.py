"""Import of plugins: Python files that define a method, which is named after the file.

A plugin is a module of the package ``method_plugins``, which has no folder. Its source is either registered in this
process, or a file in a folder ``method_plugins`` on the path: a registered model carries its plugins in such a folder.
Nothing here imports torch, and registering a file does not run it.
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
    """Register the method of a Python file under the file's stem, and return that name.

    Raises:
        ValueError: if the file cannot be a plugin; one line, without the file's name.
    """
    if problem := plugin_problem(file):
        raise ValueError(problem)
    register_source(file.stem, file.read_text(encoding="utf-8"))
    return file.stem


def register_source(name: str, source: str) -> None:
    """Register a plugin's source; it replaces an earlier source of that name."""
    if _SOURCES.get(name) != source:
        sys.modules.pop(f"{PACKAGE}.{name}", None)
        _SOURCES[name] = source


def source_of(name: str) -> str | None:
    """Return the source of a plugin; ``None`` if there is none of that name, registered or on the path."""
    if name not in _SOURCES and name.isidentifier():
        module = _PluginImporter().find_spec(f"{PACKAGE}.{name}")
        return Path(module.origin).read_text(encoding="utf-8") if module and module.origin else None
    return _SOURCES.get(name)


def load(name: str) -> ModuleType:
    """Import and return the module of a plugin.

    Raises:
        KeyError: if there is no plugin of that name.
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
    """Return why a file cannot be a plugin, or an empty string; the file is parsed and not run."""
    tree = parsed(file)
    if isinstance(tree, str):
        return tree
    missing = [name for name in ("SPEC", "SPACE") if name not in _assigned(tree)]
    return f"defines no {' and no '.join(missing)}; a plugin defines SPEC and SPACE" if missing else ""


def parsed(file: Path) -> ast.Module | str:
    """Return the syntax tree of a file, or why it cannot be registered; the file is not run."""
    from methods import names

    if file.suffix != ".py" or not file.stem.isidentifier():
        return "is not a Python file whose name can be a method's; write letters, digits and _ before .py"
    if file.stem in names() or file.stem.startswith("_"):
        return f"{file.stem} is the name of a built-in method; give the file another name"
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except SyntaxError as error:
        return f"line {error.lineno} is not valid Python: {error.msg}"
    except ValueError as error:
        return f"is not a text in UTF-8 ({error})"


def _assigned(tree: ast.Module) -> set[str]:
    """Return the names that a module assigns at its top level."""
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


class _PluginImporter(MetaPathFinder, InspectLoader):
    """Finds and loads the package and its modules, which are registered sources or files on the path."""

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


sys.meta_path.insert(0, _PluginImporter())
