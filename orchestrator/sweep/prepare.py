"""Prepare what lanes need before the first trial: tokens in the object store, the backbone in the storage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray

from orchestrator.backbone.publish import PreparedBackbone, publish_backbone
from orchestrator.common.retry import Retry
from orchestrator.common.storage import Storage
from orchestrator.config import SweepConfig
from orchestrator.config.plugins import plugin_sources
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.planning.plan import SweepPlan, TaskPlan


def prepare(
    plan: SweepPlan, storage: Storage, sweep: str, pack: int, *, remotely: bool
) -> tuple[LaneSetup, dict[str, PreparedBackbone]]:
    """Tokenize all tasks, and quantize and publish their backbones.

    Args:
        plan: plan of the sweep.
        storage: storage of backbones and sweeps.
        sweep: the sweep's name, which is its folder in the storage.
        pack: number of trials that a lane trains at once.
        remotely: whether to quantize on a worker node, since the head of a cluster may be small. On one machine this
            process is faster, because it has imported the packages already.

    Returns:
        The setup of the lanes, and the published backbone of each task.
    """
    config = plan.config
    waits = {name: _start_publishing(plan, task, storage, remotely=remotely) for name, task in plan.tasks.items()}
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
    backbones = {name: wait() for name, wait in waits.items()}
    tasks = {
        name: TaskSetup(
            config=task.data.config,
            splits=splits[name],
            labels=len(task.data.labels),
            backbone=backbones[name].quantized.digest,
            original=backbones[name].original_digest,
            pad=tokenizer.pad_token_id,
            names=task.data.labels,
        )
        for name, task in plan.tasks.items()
    }
    return _lane_setup(config, storage, sweep, tasks, pack), backbones


def _start_publishing(
    plan: SweepPlan, task: TaskPlan, storage: Storage, *, remotely: bool
) -> Callable[[], PreparedBackbone]:
    """Return a function that waits for the published backbone.

    On another node the work starts at once, while this process tokenizes; in this process it starts when the function
    is called.
    """
    labels = len(task.data.labels)
    settings = (plan.config.backbone, plan.config.base, task.type.auto_class, task.type.name, labels)
    if not remotely:
        return partial(publish_backbone, *settings, plan.needs_original, storage)
    remote = ray.remote(num_cpus=0.05, max_retries=1)(publish_backbone)
    reference = remote.remote(*settings, plan.needs_original, storage)
    return lambda: ray.get(reference)


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
        attention=config.backbone.attention,
        gpu=config.gpu,
        retry=storage.retry or Retry(),
    )
