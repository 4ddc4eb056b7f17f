"""From a file to a validated configuration, or to an error with all of its problems."""

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
from orchestrator.config.sections import SweepConfig
from orchestrator.config.yaml_file import read_yaml


def load_config(path: Path) -> SweepConfig:
    """Read and validate a sweep's configuration.

    Raises:
        InputError: With every problem of the file.
    """
    values, repeated = read_yaml(path)
    if not isinstance(values, dict):
        message = "is not a configuration; it must be a mapping with backbone, tasks, budget"
        raise InputError(str(path), [Problem("", message)])
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+|^[^A-Za-z0-9]+", "-", path.stem).lstrip("-._") or "sweep")
    return _validated(values, path.resolve().parent, str(path), repeated, path)


def config_of(values: Mapping[str, Any], base: Path, source: str) -> SweepConfig:
    """Return the configuration that :meth:`SweepConfig.resolved` was made from.

    Args:
        values: What :meth:`SweepConfig.resolved` returned.
        base: The folder that relative paths start from.
        source: Where the values come from, for errors.

    Raises:
        InputError: With every problem: an earlier release may have had other keys, and files may be gone.
    """
    return _validated(dict(values), base, source)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration, by which editors complete and check."""
    schema = SweepConfig.model_json_schema()
    listed = {"enum": [*names(), *(f"peft:{member}" for member in trainable_types())]}
    without_plugins = [listed, {"pattern": COMPOSITION}]
    schema["if"] = {"required": ["plugins"]}
    schema["then"] = _method_names({"anyOf": [*without_plugins, {"pattern": PLUGIN}]})
    schema["else"] = _method_names({"anyOf": without_plugins})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _method_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that applies another one wherever a method is named."""
    return {"properties": {"methods": {"items": schema}, "search_space": {"propertyNames": schema}}}


def _validated(
    values: dict[Any, Any],
    base: Path,
    source: str,
    repeated: Sequence[tuple[KeyPath, str]] = (),
    file: Path | None = None,
) -> SweepConfig:
    config, problems = _validate(values, base, file)
    if config is None or repeated:
        lines = [Problem(key_path(key), message) for key, message in (*repeated, *problems)]
        raise InputError(source, lines)
    return config


def _validate(
    values: dict[Any, Any], base: Path, file: Path | None
) -> tuple[SweepConfig | None, list[tuple[KeyPath, str]]]:
    """Validate; while there are errors, remove the values that have one and validate again.

    One pass is not enough: pydantic does not call a section's own validators while one of its fields has an error.
    """
    problems: dict[KeyPath, str] = {}
    removed: set[KeyPath] = set()
    remaining = copy.deepcopy(values)
    plugins = values.get("plugins") if isinstance(values.get("plugins"), list) else []
    while True:
        try:
            config = SweepConfig.model_validate(remaining, context={"base": base, "plugins": plugins, "file": file})
            return None if problems else config, _in_file_order(values, problems)
        except ValidationError as error:
            errors = [problem for details in error.errors() for problem in explain(SweepConfig, details)]
        removed_before = frozenset(removed)
        for path, message in errors:
            if any(path == cut[: len(path)] for cut in removed_before):  # an error that the removal has caused
                path = path if _contains(remaining, path) else path[:-1]
            else:
                problems.setdefault(path, message)
            removed.add(path)
        if not sum(_remove(remaining, path) for path in removed):
            return None, _in_file_order(values, problems)


def _contains(values: Any, path: KeyPath) -> bool:
    """Return whether there is a value at a path."""
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _remove(values: Any, path: KeyPath) -> bool:
    """Remove the value at a path, with its whole list where it is an item of one; return whether there was one."""
    if not path:
        return False
    for part in path[:-1]:
        if not isinstance(values, dict) or part not in values:
            return False
        if isinstance(values[part], list):
            del values[part]
            return True
        values = values[part]
    missing = object()
    return isinstance(values, dict) and values.pop(path[-1], missing) is not missing


def _in_file_order(values: Any, problems: dict[KeyPath, str]) -> list[tuple[KeyPath, str]]:
    return sorted(problems.items(), key=lambda problem: _positions(values, problem[0]))


def _positions(values: Any, path: KeyPath) -> list[int]:
    """Return the position of each part of a path among its neighbours in the file; a missing key comes last."""
    positions = []
    for part in path:
        keys = (
            list(values) if isinstance(values, dict) else list(range(len(values))) if isinstance(values, list) else []
        )
        positions.append(keys.index(part) if part in keys else len(keys))
        values = values[part] if part in keys else None
    return positions
