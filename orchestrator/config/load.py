"""From a file to a validated configuration, or to everything that is wrong with it at once."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from methods import names
from methods.families.peft_type_names import trainable_types
from orchestrator.common.errors import InputError, KeyPath, Problem, key_path
from orchestrator.config.explain import explain
from orchestrator.config.method_names import COMPOSITION, PLUGIN
from orchestrator.config.models import SweepConfig
from orchestrator.config.yaml_file import read_yaml


def load_config(path: Path) -> SweepConfig:
    """Read and check a sweep's configuration.

    Raises:
        InputError: with every problem of the file.
    """
    values, repeated = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(
            str(path), [Problem("", "holds no configuration; it must be a mapping with backbone, tasks, budget")]
        )
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]+", "-", path.stem).lstrip("-._") or "sweep")
    return _checked(values, path.resolve().parent, str(path), repeated)


def config_of(values: Mapping[str, Any], base: Path, source: str) -> SweepConfig:
    """A configuration from what :meth:`SweepConfig.resolved` made of one.

    Args:
        values: that.
        base: the folder that relative paths start from.
        source: where the values are from, for errors.

    Raises:
        InputError: with every problem; an older program may have allowed other keys, and files may be gone.
    """
    return _checked(dict(values), base, source)


def _checked(
    values: dict[Any, Any], base: Path, source: str, repeated: Sequence[tuple[KeyPath, str]] = ()
) -> SweepConfig:
    config, problems = _check(values, base)
    if config is None or repeated:
        listed = [Problem(key_path(key), message) for key, message in (*repeated, *problems)]
        raise InputError(source, listed)
    return config


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration, for editors that complete and check while one types."""
    schema = SweepConfig.model_json_schema()
    listed = {"enum": [*names(), *(f"peft:{kind}" for kind in trainable_types())]}
    known = [listed, {"pattern": COMPOSITION}]
    schema["if"] = {"required": ["plugins"]}
    schema["then"] = _named({"anyOf": [*known, {"pattern": PLUGIN}]})
    schema["else"] = _named({"anyOf": known})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _named(methods: dict[str, Any]) -> dict[str, Any]:
    """Where names of methods stand, and what they can be."""
    return {"properties": {"methods": {"items": methods}, "search_space": {"propertyNames": methods}}}


def _check(values: dict[Any, Any], base: Path) -> tuple[SweepConfig | None, list[tuple[KeyPath, str]]]:
    """Validate; where that fails, strike what is wrong and look again, since one error can hide others."""
    problems: dict[KeyPath, str] = {}
    struck: set[KeyPath] = set()
    left = copy.deepcopy(values)
    listed = values.get("plugins") if isinstance(values.get("plugins"), list) else []
    while True:
        try:
            config = SweepConfig.model_validate(left, context={"base": base, "plugins": listed})
            return None if problems else config, _in_order(values, problems)
        except ValidationError as error:
            found = [problem for details in error.errors() for problem in explain(SweepConfig, details)]
        before = frozenset(struck)
        for path, message in found:
            if any(path == cut[: len(path)] for cut in before):  # it came of the striking itself
                path = path if _holds(left, path) else path[:-1]
            else:
                problems.setdefault(path, message)
            struck.add(path)
        if not sum(_strike(left, path) for path in struck):
            return None, _in_order(values, problems)


def _holds(values: Any, path: KeyPath) -> bool:
    """Whether anything stands at a path."""
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _strike(values: Any, path: KeyPath) -> bool:
    """Remove what stands at a path, if anything does; the whole list where it is an item of one."""
    if not path:
        return False
    for part in path[:-1]:
        if not isinstance(values, dict) or part not in values:
            return False
        if isinstance(values[part], list):
            del values[part]
            return True
        values = values[part]
    return isinstance(values, dict) and values.pop(path[-1], _strike) is not _strike


def _in_order(values: Any, problems: dict[KeyPath, str]) -> list[tuple[KeyPath, str]]:
    return sorted(problems.items(), key=lambda problem: _order(values, problem[0]))


def _order(values: Any, path: KeyPath) -> list[int]:
    """Where a path stands in the file; what is missing comes last in its section."""
    order = []
    for part in path:
        keys = (
            list(values) if isinstance(values, dict) else list(range(len(values))) if isinstance(values, list) else []
        )
        order.append(keys.index(part) if part in keys else len(keys))
        values = values[part] if part in keys else None
    return order
