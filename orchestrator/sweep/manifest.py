"""The description of a sweep in its ``sweep`` event, and the digests by which a resumed sweep checks its inputs."""

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
from orchestrator.tasks.rendering import is_rendered
from orchestrator.warm_start import typical_characters
from search_spaces._base import SearchSpace

if TYPE_CHECKING:
    from orchestrator.backbone.publish import PreparedBackbone

_CHANGES = {
    "data": "the rows have changed since the sweep started",
    "backbone": "the checkpoint has changed since the sweep started",
    "chat_template": "the chat template has changed since the sweep started",
    "plugins": "the plugin, or the file with a metric, has changed since the sweep started",
    "spaces": "the search space has changed since the sweep started",
    "rungs": "the rungs have changed since the sweep started",
}


def driver(began: float) -> dict[str, Any]:
    """Return what ``sweep`` and ``resume`` events record of their driver: start, process, host and package versions.

    Args:
        began: the driver's start, in seconds since 1970.
    """
    return {"began": began, "pid": os.getpid(), "host": platform.node(), "versions": versions()}


def describe(plan: SweepPlan, sweep: str, backbones: Mapping[str, PreparedBackbone]) -> dict[str, Any]:
    """Return the fields of the ``sweep`` event, which describe a sweep completely together with :func:`driver`.

    Args:
        plan: plan of the sweep.
        sweep: the sweep's name.
        backbones: published backbone by task.
    """
    config = plan.config.resolved()
    return {
        "sweep": sweep,
        "config": config,
        "directory": str(Path.cwd()),
        "identity": identity(plan),
        "device": plan.device.fields(),
        "tasks": {
            name: {
                "digest": task.data.digest,
                "rows": task.data.rows,
                "cut": {split: count.fields() for split, count in plan.cut_rows(task).items() if count.cut},
                "labels": list(task.data.labels),
                "columns": task.data.config.input_columns,
                "majority": task.data.majority,
                "baseline": task.data.baseline,
                "constants": dict(task.data.constants),
                "characters": typical_characters(task.data, task.type),
                "metric": task.type.optimized.name,
                "higher_is_better": task.type.optimized.higher_is_better,
            }
            for name, task in plan.tasks.items()
        },
        "backbone": {
            **config["backbone"],
            "digest": {name: backbone.quantized.digest for name, backbone in backbones.items()},
            "checksum": {name: backbone.checksum for name, backbone in backbones.items()},
            "architecture": plan.architecture,
            "parameters": plan.parameters,
            "bytes": max(backbone.quantized.size for backbone in backbones.values()),
        },
        "left_out": {
            f"{name}/{method.method}": method.reason
            for name, task in plan.tasks.items()
            for method in task.methods
            if not method.available
        },
    }


def identity(plan: SweepPlan) -> dict[str, dict[str, Any]]:
    """Return digests of a plan's inputs, by kind and name. Trials of plans with equal digests can be compared."""
    settings = plan.config.backbone
    return {
        "data": {name: task.data.digest for name, task in plan.tasks.items()},
        "backbone": {
            name: backbone_digest(
                plan.source, task.type.auto_class, settings.quantization, settings.double_quantization
            )
            for name, task in plan.tasks.items()
        },
        # Rows are digested as they are in their files, and checkpoints without their tokenizers.
        "chat_template": {
            name: _digest(json.dumps(plan.tokenizer.chat_template))
            for name, task in plan.tasks.items()
            if is_rendered(task.data.splits["train"])
        },
        "plugins": {name: _digest(source) for name, source in plugin_sources(plan.config)},
        "spaces": {study.study: _digest(_space(study.space)) for study in plan.studies},
        "rungs": {"steps": list(plan.rungs)},
    }


def changed_inputs(
    recorded: Mapping[str, Mapping[str, Any]], current: Mapping[str, Mapping[str, Any]]
) -> list[Problem]:
    """Return a problem for each input that has changed since a sweep started.

    Args:
        recorded: identity of the plan in the journal.
        current: identity of a plan of the same configuration.
    """
    return [
        Problem(f"{kind}.{name}", _CHANGES[kind])
        for kind, digests in recorded.items()
        for name in dict.fromkeys([*digests, *current[kind]])
        if digests.get(name) != current[kind].get(name)
    ]


def changed_versions(recorded: Mapping[str, str]) -> dict[str, list[str | None]]:
    """Return the recorded and the installed version of each package whose version has changed.

    Args:
        recorded: version by package.
    """
    installed = versions()
    pairs = {name: [recorded.get(name), installed.get(name)] for name in {**recorded, **installed}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _space(space: SearchSpace) -> str:
    distributions = {name: distribution_to_json(distribution) for name, distribution in space.distributions.items()}
    return json.dumps([distributions, dict(space.default)], sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
