"""What a method can be called: as a file, as a plugin, as a member of a family. Imports no machine-learning library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods import names
from methods.families.compose_names import methods_of, parse
from methods.families.peft_type_names import refused, trainable_types
from methods.plugins.loader import plugin_problem
from orchestrator.common.suggest import did_you_mean

COMPOSITION = r"^compose:.+$"
PLUGIN = r"^[A-Za-z][A-Za-z0-9_]*$"


def method_problem(name: str, plugins: Sequence[str]) -> str:
    """What is wrong with a method's name; empty if nothing is.

    Args:
        name: as in the configuration.
        plugins: the names of the configuration's plugins.
    """
    family, colon, member = name.partition(":")
    if family == "compose" and colon:
        return _composition_problem(member, plugins)
    if family == "peft" and colon and member in refused():
        return f"{name} {refused()[member]}"
    known = [*names(), *plugins, *(f"peft:{kind}" for kind in trainable_types())]
    if name in known:
        return ""
    hint = did_you_mean(name, known)
    if hint.startswith("known"):  # too many to list
        hint = f"known: {', '.join((*names(), *plugins))}, peft:TYPE and compose:PART+PART"
    return f'unknown method "{name}"; {hint}'


def _composition_problem(member: str, plugins: Sequence[str]) -> str:
    try:
        parts = parse(member)
    except ValueError as error:
        return f"compose:{member}: {error}"
    problems = (method_problem(part.method, plugins) for part in parts)
    return next((f"compose:{member}: {problem}" for problem in problems if problem), "")


def has_plugin(name: str, plugins: Sequence[str]) -> bool:
    """Whether a method is a plugin, or a composition with one in it."""
    return bool(set(plugins).intersection(methods_of(name)))


def plugin_problems(plugins: Sequence[str], base: Path) -> list[tuple[tuple[str | int, ...], str]]:
    """Files that cannot be plugins, as far as reading them tells.

    Args:
        plugins: paths as in the configuration.
        base: the folder that relative ones start from.

    Returns:
        Pairs of a key path and what is wrong there.
    """
    found: list[tuple[tuple[str | int, ...], str]] = []
    stems: list[Any] = [Path(plugin).stem for plugin in plugins]
    for place, plugin in enumerate(plugins):
        file = base / Path(plugin).expanduser()
        problem = plugin_problem(file) if file.is_file() else f"there is no {file}"
        if not problem and stems[place] in stems[:place]:
            problem = f"two plugins are called {stems[place]}; a file's name is its method's"
        if problem:
            found.append(((place,), f"{plugin}: {problem}" if file.is_file() else problem))
    return found
