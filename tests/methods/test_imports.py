"""Which packages of methods/ import which: a method's file depends on the tools and on no other method."""

import ast
from pathlib import Path

import pytest

import methods

FOLDER = Path(methods.__file__).parent
TOOLS = ("methods.base", "methods.parts")
# plugins and families may ask the registry, which is the package methods itself
ALLOWED = {
    "base": ("methods.base",),
    "parts": TOOLS,
    "families": (*TOOLS, "methods.families", "methods"),
    "plugins": (*TOOLS, "methods.plugins", "methods"),
}


def imported(file: Path) -> set[str]:
    """The modules of methods/ that a file imports from, by their full names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.partition(".")[0] == "methods"}


def is_allowed(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or (package != "methods" and name.startswith(f"{package}.")) for package in packages)


@pytest.mark.parametrize("name", methods.names())
def test_method_imports_tools_alone(name: str) -> None:
    assert not [module for module in imported(FOLDER / f"{name}.py") if not is_allowed(module, TOOLS)]


@pytest.mark.parametrize("package", ALLOWED)
def test_package_of_methods_imports_no_method(package: str) -> None:
    for file in (FOLDER / package).glob("*.py"):
        assert not [module for module in imported(file) if not is_allowed(module, ALLOWED[package])], file
