"""The names of methods: files, plugins, members of a family. Imports no machine-learning library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from methods import names
from methods.families.compose_names import methods_of, parse
from methods.families.peft_type_names import refused, trainable_types
from methods.plugins.loader import plugin_problem
from orchestrator.common.errors import KeyPath
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import expand_home

COMPOSITION = r"^compose:.+$"
PLUGIN = r"^[A-Za-z][A-Za-z0-9_]*$"


def method_problem(name: str, plugins: Sequence[str]) -> str:
    """Return what is wrong with a method's name; empty if nothing is.

    Args:
        name: Name as in the configuration.
        plugins: Names of the configuration's plugins.
    """
    family, colon, member = name.partition(":")
    if name == "peft:":
        return "peft: names no type; write one behind it, as in peft:loha"
    if name == "compose:":
        return "compose: names no parts; write them behind it, as in compose:lora+ia3"
    if family == "compose" and colon:
        return _composition_problem(member, plugins)
    if family == "peft" and colon and member in refused():
        return f"{name} {refused()[member]}"
    valid_names = [*names(), *plugins, *(f"peft:{peft_type}" for peft_type in trainable_types())]
    if name in valid_names:
        return ""
    hint = did_you_mean(name, valid_names)
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
    """Return whether a method is a plugin, or a composition with one in it."""
    return bool(set(plugins).intersection(methods_of(name)))


def plugin_problems(plugins: Sequence[str], base: Path) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with plugins, as far as it shows without running their code.

    Args:
        plugins: Paths as in the configuration.
        base: The folder that relative paths start from.

    Returns:
        Pairs of a key path and a message.
    """
    problems: list[tuple[KeyPath, str]] = []
    stems = [Path(plugin).stem for plugin in plugins]
    for index, plugin in enumerate(plugins):
        file = base / expand_home(plugin)
        problem = plugin_problem(file) if file.is_file() else f"there is no {file}"
        if not problem and stems[index] in stems[:index]:
            problem = f"two plugins are called {stems[index]}; a plugin's method has the name of its file"
        if problem:
            problems.append(((index,), f"{plugin}: {problem}" if file.is_file() else problem))
    return problems
