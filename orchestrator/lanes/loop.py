"""What Ray Train runs in every worker; importing this file loads neither torch nor the worker."""

from __future__ import annotations

import gc
import os
from typing import Any


def lane_loop(config: dict[str, Any]) -> None:
    """Run a lane until the broker lets it retire.

    Args:
        config: ``broker``, the actor; ``first``, the number of this group's first lane; ``threads`` (``None`` for its
            share of the node's cores) and ``gpus`` per worker. Each worker is a lane, unless a process group makes all
            workers of the group one lane. ``node`` is the trainer's.
    """
    if not config["gpus"]:
        # Ray leaves the machine's GPUs visible to workers without any. Libraries would use them, and each process that
        # does takes some hundred megabytes of a GPU's memory.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _import_all()
    import torch
    from ray import train

    from orchestrator.engine.ranks import Ranks
    from orchestrator.lanes.worker import Worker, lane_device

    torch.set_num_threads(config["threads"] or threads_of_share(_node(), config["gpus"]))
    ranks = Ranks.current()
    lane = config["first"] + (train.get_context().get_world_rank() if ranks.size == 1 else 0)
    _enter(config["broker"], lane)
    Worker(lane, config["broker"], ranks, lane_device(config["gpus"]), own_gpu=config["gpus"] >= 1).run()


def threads_of_share(node: dict[str, float], gpus: float) -> int:
    """Return the processor threads of a worker: the share of the node's cores that it has of the node's GPUs.

    Args:
        node: resources of the node, ``CPU`` and ``GPU``.
        gpus: GPUs of the worker, or a fraction of one.
    """
    return max(1, int(node.get("CPU", 0) * gpus / max(gpus, node.get("GPU", 0))))


def _node() -> dict[str, float]:
    """Return the resources of this worker's node."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return next((node["Resources"] for node in ray.nodes() if node["NodeID"] == here), {})


def _enter(broker: Any, lane: int) -> None:
    """Let the driver know that a process of the lane runs, and in which placement group."""
    import ray

    ray.get(broker.enter.remote(lane, ray.util.get_current_placement_group()))


def _import_all() -> None:
    """Import what the first trial would wait for, while the driver still tokenizes and quantizes.

    The imports make hundreds of thousands of objects that all stay. Collecting no garbage meanwhile saves a tenth of
    the time, and freezing the objects afterwards saves a third of a second in every later full collection.
    """
    gc.disable()
    import methods
    import orchestrator.lanes.worker  # noqa: F401

    # The methods import peft. bitsandbytes has been imported by then, without torch's compiler: peft would import it
    # with the compiler, which takes a second.
    for name in methods.names():
        methods.get(name)
    gc.freeze()
    gc.enable()
