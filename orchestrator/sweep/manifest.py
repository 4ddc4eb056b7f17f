"""What the journal says of a sweep when it begins, and what a sweep that goes on must find as it was."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json

from orchestrator.backbone.store import backbone_digest
from orchestrator.common.errors import Problem
from orchestrator.common.package_versions import versions
from orchestrator.config.plugins import plugin_sources
from orchestrator.planning.plan import SweepPlan
from orchestrator.warm_start import typical_characters
from search_spaces._base import SearchSpace

if TYPE_CHECKING:
    from orchestrator.backbone.publish import PreparedBackbone

Event = Mapping[str, Any]
_WORDS = {
    "data": "the rows are not those that the sweep began with",
    "backbone": "the checkpoint is not the one that the sweep began with",
    "plugins": "the plugin is not the one that the sweep began with",
    "spaces": "it is searched otherwise than when the sweep began",
    "rungs": "they are not those that the sweep began with",
}


def driver(began: float) -> dict[str, Any]:
    """Who drives a sweep, since when and with what; in the journal's ``sweep`` and ``resume`` events.

    Args:
        began: seconds since 1970.
    """
    return {"began": began, "pid": os.getpid(), "host": platform.node(), "versions": versions()}


def describe(plan: SweepPlan, sweep: str, backbones: Mapping[str, PreparedBackbone]) -> dict[str, Any]:
    """Everything that is needed to tell what was run: the journal's first event, with :func:`driver`."""
    config = plan.config.resolved()
    return {
        "sweep": sweep,
        "config": config,
        "directory": str(Path.cwd()),
        "identity": identity(plan),
        "tasks": {
            name: {
                "digest": task.data.digest,
                "rows": {split: rows.num_rows for split, rows in task.data.splits.items()},
                "labels": list(task.data.labels),
                "majority": task.data.majority,
                "characters": typical_characters(task.data),
                "metric": task.data.config.metric,
                "higher_is_better": task.type.metric(task.data.config.metric).higher_is_better,
            }
            for name, task in plan.tasks.items()
        },
        "backbone": {
            **config["backbone"],
            "digest": {name: one.quantized.digest for name, one in backbones.items()},
            "checksum": {name: one.checksum for name, one in backbones.items()},
            "architecture": plan.architecture,
            "parameters": plan.parameters,
            "bytes": max(one.quantized.size for one in backbones.values()),
        },
        "left_out": {
            f"{name}/{method.method}": method.reason
            for name, task in plan.tasks.items()
            for method in task.methods
            if not method.available
        },
    }


def identity(plan: SweepPlan) -> dict[str, dict[str, Any]]:
    """What makes trials of one plan comparable with those of another: by kind, then by name."""
    settings = plan.config.backbone
    return {
        "data": {name: task.data.digest for name, task in plan.tasks.items()},
        "backbone": {
            name: backbone_digest(
                plan.source, task.type.auto_class, settings.quantization, settings.double_quantization
            )
            for name, task in plan.tasks.items()
        },
        "plugins": {name: _digest(source) for name, source in plugin_sources(plan.config)},
        "spaces": {one.study: _digest(_space(one.space)) for one in plan.studies},
        "rungs": {"steps": list(plan.rungs)},
    }


def departures(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Where a plan is another than the one that a sweep began with, a line each.

    Args:
        then: the identity of the plan in the journal.
        now: the identity of a plan of the same configuration.
    """
    return [
        Problem(f"{kind}.{name}", _WORDS[kind])
        for kind, names in then.items()
        for name in dict.fromkeys([*names, *now[kind]])
        if names.get(name) != now[kind].get(name)
    ]


def changed_versions(then: Mapping[str, str]) -> dict[str, list[str | None]]:
    """What is installed in another version than then: by package, then and now."""
    now = versions()
    return {name: [then.get(name), now.get(name)] for name in {**then, **now} if then.get(name) != now.get(name)}


def _space(space: SearchSpace) -> str:
    distributions = {name: distribution_to_json(one) for name, one in space.distributions.items()}
    return json.dumps([distributions, dict(space.default)], sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
