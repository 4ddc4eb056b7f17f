"""Prepare what lanes need before the first trial: tokens in the object store, the backbone in the storage."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from orchestrator.backbone.publish import PreparedBackbone, publish_backbone
from orchestrator.backbone.skeleton import largest_weight
from orchestrator.common.retry import Retry
from orchestrator.common.storage import Storage
from orchestrator.config import SweepConfig
from orchestrator.config.plugins import plugin_sources
from orchestrator.lanes.cluster import node_resources
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.step_watch import HangLimits
from orchestrator.planning.plan import SweepPlan, TaskPlan
from orchestrator.sweep.token_limits import token_limits
from orchestrator.sweep.tokenizing import SLIVER, put_tokens

log = logging.getLogger(__name__)
OVERHEAD_BYTES = 1_500_000_000
"""Memory of the preparing process beside three times the largest weight: its imports, and 500 MB."""
MOST_THREADS = 8
HANG_LIMITS = HangLimits()


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
    # One publication for each model class: a backbone, and its checksum, are the same for all tasks of a class.
    task_by_class = {task.type.auto_class: task for task in plan.tasks.values()}
    publications = {
        auto_class: _start_publishing(plan, task, storage, remotely=remotely)
        for auto_class, task in task_by_class.items()
    }
    tokenizer = plan.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(Path(folder) / "tokenizer")
        storage.upload(Path(folder) / "tokenizer", f"{sweep}/tokenizer")
    splits = {
        name: {
            split: put_tokens(task.type, rows, tokenizer, config.training.max_length)
            for split, rows in task.data.splits.items()
        }
        for name, task in plan.tasks.items()
    }
    published = {auto_class: wait() for auto_class, wait in publications.items()}
    backbones = {name: published[task.type.auto_class] for name, task in plan.tasks.items()}
    tasks = {
        name: TaskSetup(
            config=task.data.config,
            splits=splits[name],
            labels=task.type.head_size(len(task.data.labels)),
            backbone=backbones[name].quantized.digest,
            original=backbones[name].original_digest,
            pad=tokenizer.pad_token_id,
            names=task.data.labels,
            constants=task.data.constants,
        )
        for name, task in plan.tasks.items()
    }
    setup = _lane_setup(config, storage, sweep, tasks, pack)
    return replace(setup, token_limits=token_limits(plan)), backbones


def _start_publishing(
    plan: SweepPlan, task: TaskPlan, storage: Storage, *, remotely: bool
) -> Callable[[], PreparedBackbone]:
    """Return a function that waits for the published backbone.

    On another node the work starts at once, while this process tokenizes; in this process it starts when the function
    is called.
    """
    labels = task.type.head_size(len(task.data.labels))
    settings = (plan.config.backbone, plan.config.base, task.type.auto_class, task.type.name, labels)
    arguments = (*settings, plan.needs_original, storage, plan.source.hub)
    if not remotely:
        return partial(publish_backbone, *arguments)
    needed = OVERHEAD_BYTES + 3 * largest_weight(plan.source.config(), task.type.auto_class)
    memory = memory_request(needed, [node for node in node_resources().values() if node.get("CPU")])
    # The sliver of a core that lanes leave: they have been started, and hold the rest of all cores until the end.
    remote = ray.remote(num_cpus=SLIVER, memory=memory, max_retries=1)(_publish_in_threads)
    reference = remote.remote(*arguments)
    return lambda: ray.get(reference)


def memory_request(needed: int, nodes: list[dict[str, float]]) -> int:
    """Return the memory that the preparation asks Ray for, in bytes.

    Args:
        needed: estimate of what it takes, in bytes.
        nodes: resources of the nodes that have cores; none if an autoscaler has to add the first.

    Returns:
        The estimate, or all memory of the largest node if no node has so much: Ray would wait for another for ever.
    """
    largest = int(max((node.get("memory", 0) for node in nodes), default=needed))
    if largest < needed:
        sizes = f"about {needed / 1e9:.1f} GB of memory; the largest node has {largest / 1e9:.1f} GB for tasks"
        log.warning("preparing the backbone takes %s", sizes)
    return min(needed, largest)


def _publish_in_threads(*arguments: Any) -> PreparedBackbone:
    """Publish a backbone with a thread per core: those of the lanes are free, since lanes wait for the backbone.

    Ray sets one thread, by the fraction of a core that the task asks for.
    """
    torch.set_num_threads(min(MOST_THREADS, len(os.sched_getaffinity(0))))
    return publish_backbone(*arguments)


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
        hangs=HANG_LIMITS,
    )
