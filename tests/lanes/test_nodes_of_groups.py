"""Groups of lanes on nodes of different sizes: each starts on the node that the plan has for it, and on no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.config import Lanes
from orchestrator.lanes import group as module
from orchestrator.lanes.cluster import Cluster, lane_layout, node_resources, workers_that_fit
from orchestrator.lanes.placement import planned_nodes

from .test_group import NOISE, Site, frail_lane

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(line) for line in NOISE)]


@pytest.fixture
def without_tokens() -> Iterator[None]:
    """Let Ray forget that an earlier session of this process asked for tokens, which these nodes do not send."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        reset_auth_token_state()
        yield
    reset_auth_token_state()


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_tokens: None) -> Iterator[Callable[..., Site]]:
    """Make sites on a head without cores and two nodes, of one core and of three."""
    from ray.cluster_utils import Cluster as Nodes

    monkeypatch.setattr(module, "lane_loop", frail_lane())
    nodes = Nodes()
    for cores in (0, 1, 3):
        nodes.add_node(num_cpus=cores)
    nodes.wait_for_nodes()
    with Cluster(nodes.address) as cluster:
        cluster.wait_until_connected()
        yield lambda name, sizes, **named: Site(tmp_path / name, sizes, cpus=1.0, **named)
    nodes.shutdown()


def test_lane_groups_start_on_the_nodes_planned_for_them(make_site: Callable[..., Site]) -> None:
    resources = node_resources()
    rooms = {node: workers_that_fit(each, 1.0, 0.0) for node, each in resources.items()}
    sizes, _, _ = lane_layout(Lanes(), list(resources.values()))
    assert sorted(sizes) == [1, 3]
    small, large = (next(node for node, room in rooms.items() if room == size) for size in (1, 3))

    site = make_site("both", sizes, nodes=planned_nodes(sizes, rooms))
    assert site.nodes() == [large, large, large, small]
    site.close()
    for node in (small, large):  # Ray itself would start both on the same node
        site = make_site(node, [1], nodes=[node])
        assert site.nodes() == [node]
        site.close()
