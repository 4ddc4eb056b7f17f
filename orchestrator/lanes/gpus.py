"""Ask the nodes of a cluster for their GPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.engine.gpu import Gpu, visible_gpus

ANSWER_TIMEOUT_S = 120.0
"""Longest wait for all nodes: a new one unpacks the packages and imports torch first."""
ACCELERATOR = "accelerator_type:"
log = logging.getLogger(__name__)


def cluster_gpus(nodes: list[dict[str, Any]], read: Callable[[], list[Gpu]] = visible_gpus) -> list[Gpu]:
    """Return the kinds of GPUs in the connected cluster, from one node of each accelerator type.

    The question takes no GPU, so that it is answered while others train there.

    Args:
        nodes: what ``ray.nodes()`` returns.
        read: function that returns the GPUs of the process that it is called in.

    Returns:
        The distinct kinds; empty if no node has a GPU, or none answers in time.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=1)(read)
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in _nodes_to_ask(nodes)
    ]
    answered, silent = ray.wait(answers, num_returns=len(answers), timeout=ANSWER_TIMEOUT_S) if answers else ([], [])
    for answer in silent:
        ray.cancel(answer, force=True)
    gpus: list[Gpu] = []
    for answer in answered:
        try:
            gpus += ray.get(answer)
        except ray.exceptions.RayError as error:  # a node that was lost meanwhile
            log.warning("a node did not tell its GPUs: %s", error)
    return sorted(set(gpus), key=lambda gpu: gpu.memory_bytes)


def _nodes_to_ask(nodes: list[dict[str, Any]]) -> list[str]:
    """Return the id of one living node with GPUs for each accelerator type; of every such node without a type."""
    by_kind = {_kind(node): node["NodeID"] for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0)}
    return list(by_kind.values())


def _kind(node: Mapping[str, Any]) -> tuple[str, ...]:
    types = tuple(sorted(name for name in node["Resources"] if name.startswith(ACCELERATOR)))
    return types or (node["NodeID"],)
