"""A configuration's plugins: registered in this process, and held to the methods' contract before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods
from methods.plugins.loader import register, source_of
from orchestrator.common.errors import InputError, Problem, first_line, key_path
from orchestrator.common.uris import expand_home
from orchestrator.config import SweepConfig
from orchestrator.config.method_names import has_plugin
from orchestrator.config.overrides import search_space_problems
from orchestrator.tasks.user_metric import module_of
from orchestrator.tasks.user_metric import register as register_metrics

if TYPE_CHECKING:
    from methods.base.spec import MethodSpec


def check_plugins(config: SweepConfig) -> None:
    """Register the plugins of a configuration and try each on a tiny model; register the files of its metrics too.

    What a plugin searches is known once its code has run, so the overrides of its search space are checked here and
    not when the configuration is read.

    Raises:
        InputError: With the first breach of the contract in each plugin; without any, with every override that does
            not fit a plugin's search space.
    """
    for task in config.tasks.values():
        register_metrics(task.metric_references, config.base)
    if not config.plugins:
        return
    from methods import MethodError
    from methods.plugins.check import check_plugin

    problems = []
    for index, plugin in enumerate(config.plugins):
        try:
            check_plugin(register(config.base / expand_home(plugin)))
        except (ValueError, MethodError) as error:
            problems.append(Problem(f"plugins[{index}]", f"{plugin}: {error}"))
    if not problems:
        overrides = {
            method: space for method, space in config.search_space.items() if has_plugin(method, config.plugin_names)
        }
        problems = [
            Problem(key_path(("search_space", *path)), message) for path, message in search_space_problems(overrides)
        ]
    if problems:
        raise InputError(config.name, problems)


def method_with(name: str, plugins: Iterable[Path], reference: str) -> MethodSpec[Any]:
    """Return the method of something trained earlier, after running the code of the plugins that it came with.

    Args:
        name: The method's name.
        plugins: The plugins' files.
        reference: What the user asked for, for the error.

    Raises:
        InputError: If there is no such method, or a plugin has the name of another method.
    """
    try:
        for plugin in plugins:
            register(plugin)
        return methods.get(name)
    except (KeyError, ValueError) as error:
        message = f"its method {name} cannot be loaded ({first_line(error)})"
        raise InputError(reference, [Problem("", message)]) from error


def plugin_sources(config: SweepConfig) -> tuple[tuple[str, str], ...]:
    """Return name and source text of every plugin and file with a metric, for the processes that train trials."""
    metrics = [module_of(name) for task in config.tasks.values() for name in task.metrics]
    names = dict.fromkeys([*config.plugin_names, *filter(None, metrics)])
    return tuple((name, source_of(name) or "") for name in names)
