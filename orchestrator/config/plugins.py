"""A configuration's plugins: registered in this process, and held to the contract before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods
from methods.plugins.loader import register, source_of
from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.config import SweepConfig
from orchestrator.config.method_names import has_plugin
from orchestrator.config.overrides import override_problems

if TYPE_CHECKING:
    from methods.base.spec import MethodSpec


def check_plugins(config: SweepConfig) -> None:
    """Register the plugins of a configuration, and try each on a tiny model.

    Raises:
        InputError: with the first thing that each does not keep, and with every override that does not fit one.
    """
    if not config.plugins:
        return
    from methods import MethodError
    from methods.plugins.contract import check_plugin

    problems = []
    for place, plugin in enumerate(config.plugins):
        try:
            check_plugin(register(config.base / Path(plugin).expanduser()))
        except (ValueError, MethodError) as error:
            problems.append(Problem(f"plugins[{place}]", f"{plugin}: {error}"))
    if not problems:
        own = {name: space for name, space in config.search_space.items() if has_plugin(name, config.plugin_names)}
        keys = [(".".join(("search_space", *map(str, key))), text) for key, text in override_problems(own)]
        problems = [Problem(key, text) for key, text in keys]
    if problems:
        raise InputError(config.name, problems)


def method_with(name: str, plugins: Iterable[Path], reference: str) -> MethodSpec[Any]:
    """The method of something trained earlier, after running the code of the plugins that it came with.

    Args:
        name: of the method.
        plugins: their files.
        reference: what the user asked for.

    Raises:
        InputError: if there is no such method here, or one of a plugin's name is another.
    """
    try:
        for plugin in plugins:
            register(plugin)
        return methods.get(name)
    except (KeyError, ValueError) as error:
        reason = f"its method {name} is not known here ({first_line(error)})"
        raise InputError(reference, [Problem("", reason)]) from error


def plugin_sources(config: SweepConfig) -> tuple[tuple[str, str], ...]:
    """Name and text of every plugin, to be registered where trials are trained."""
    return tuple((name, source_of(name) or "") for name in config.plugin_names)
