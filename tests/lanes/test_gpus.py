"""The question to a cluster's nodes for their GPUs, on a real Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from orchestrator.engine.gpu import Gpu
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.gpus import _nodes_to_ask, cluster_gpus

pytestmark = pytest.mark.ray
L4, H100 = Gpu("L4", 24e9, bfloat16=True), Gpu("H100", 80e9, bfloat16=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[dict[str, Any]]]:
    """The nodes of a Ray on this machine, as a node with two GPUs would be listed."""
    with Cluster() as cluster:
        cluster.wait_until_connected()
        yield [{**node, "Resources": {**node["Resources"], "GPU": 2.0}} for node in ray.nodes()]


def test_cluster_gpus_are_the_kinds_that_nodes_tell(nodes: list[dict[str, Any]]) -> None:
    assert cluster_gpus(nodes, lambda: [H100, L4, L4]) == [L4, H100]


def test_cluster_gpus_of_a_node_that_fails_are_unknown(nodes: list[dict[str, Any]]) -> None:
    def fail() -> list[Gpu]:
        raise RuntimeError("no driver")

    assert cluster_gpus(nodes, fail) == []


def test_cluster_gpus_without_gpu_nodes_are_none(nodes: list[dict[str, Any]]) -> None:
    assert cluster_gpus([{**node, "Resources": {"CPU": 2.0}} for node in nodes]) == []


def test_cluster_gpus_ask_one_node_of_each_accelerator_type() -> None:
    def node(name: str, **resources: float) -> dict[str, Any]:
        return {"NodeID": name, "Alive": name != "dead", "Resources": {"GPU": 1.0, **resources}}

    typed = [node(name, **{"accelerator_type:L4": 1.0}) for name in ("a", "b", "dead")]
    assert _nodes_to_ask([*typed, node("c"), node("d"), {**node("e"), "Resources": {"CPU": 1.0}}]) == ["b", "c", "d"]
