"""What must be there before the first trial: tokens in the object store, the backbone in the storage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray

from orchestrator.backbone.publish import PreparedBackbone, publish_backbone
from orchestrator.common.storage import Storage
from orchestrator.config import SweepConfig
from orchestrator.config.plugins import plugin_sources
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.planning.plan import SweepPlan, TaskPlan


def prepare(
    plan: SweepPlan, storage: Storage, sweep: str, pack: int, *, remotely: bool
) -> tuple[LaneSetup, dict[str, PreparedBackbone]]:
    """Tokenize and publish.

    Args:
        plan: of the sweep.
        storage: where backbones and the sweep's folder are.
        sweep: the sweep's folder in it.
        pack: how many trials a lane trains at once.
        remotely: quantize on a worker node, since the head of a cluster may be small. On one machine this process,
            which has imported everything already, is ready sooner than another.
    """
    config = plan.config
    published = {name: _publishing(plan, task, storage, remotely=remotely) for name, task in plan.tasks.items()}
    tokenizer = plan.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(Path(folder) / "tokenizer")
        storage.upload(Path(folder) / "tokenizer", f"{sweep}/tokenizer")
    splits = {
        name: {
            split: ray.put(task.type.tokenize(rows, tokenizer, config.training.max_length))
            for split, rows in task.data.splits.items()
        }
        for name, task in plan.tasks.items()
    }
    ready = {name: wait() for name, wait in published.items()}
    tasks = {
        name: TaskSetup(
            config=task.data.config,
            splits=splits[name],
            labels=len(task.data.labels),
            backbone=ready[name].quantized.digest,
            original=ready[name].original_digest,
            pad=tokenizer.pad_token_id,
            names=task.data.labels,
        )
        for name, task in plan.tasks.items()
    }
    return _lane_setup(config, storage, sweep, tasks, pack), ready


def _publishing(plan: SweepPlan, task: TaskPlan, storage: Storage, *, remotely: bool) -> Callable[[], PreparedBackbone]:
    """What gives the published backbone: on another node the work begins at once, here when it is asked for."""
    labels = len(task.data.labels)
    settings = (plan.config.backbone, plan.config.base, task.type.auto_class, task.type.name, labels)
    if not remotely:
        return partial(publish_backbone, *settings, plan.needs_original, storage)
    remote = ray.remote(num_cpus=0.05, max_retries=1)(publish_backbone)
    begun = remote.remote(*settings, plan.needs_original, storage)
    return lambda: ray.get(begun)


def _lane_setup(config: SweepConfig, storage: Storage, sweep: str, tasks: dict[str, TaskSetup], pack: int) -> LaneSetup:
    return LaneSetup(
        storage=storage.root,
        sweep=sweep,
        model=config.backbone.model,
        dtype=config.backbone.compute_dtype,
        tasks=tasks,
        training=config.training,
        seed=config.seed,
        pack=pack,
        plugins=plugin_sources(config),
        measure_pack=config.lanes.pack == "auto",
    )
