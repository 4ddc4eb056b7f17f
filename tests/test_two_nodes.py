"""A sweep over two Ray nodes. Both are this machine, but each has its own cache and its own object store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.plan import make_plan
from orchestrator.sweep import run_sweep

from .small_sweep import NOISE, ends, events, journal_of, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, *(pytest.mark.filterwarnings(one) for one in NOISE)]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster()
    try:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            cluster.add_node(num_cpus=1, env_vars={"PEFT_SWEEP_CACHE": str(tmp_path / name)})
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def test_lanes_on_two_nodes_share_a_sweep_and_fetch_the_backbone_once_each(tmp_path: Path, address: str) -> None:
    plan = make_plan(
        load_config(write_sweep(tmp_path, lanes={"min": 2}, training={"max_steps": 60}, budget={"trials": 10}))
    )
    outcome = run_sweep(plan, sweep="two-nodes", address=address, watch=lambda snapshot: None, stop=threading.Event())

    assert set(ends(events(journal_of(tmp_path))).values()) <= {"complete", "pruned"}
    assert outcome.tasks["mail"].registered.alias == "champion"
    assert len({lane.node for lane in outcome.lanes.values()}) == len(outcome.lanes) == 2
    assert all(lane.busy_seconds > 0 for lane in outcome.lanes.values()), "both were at work"
    (published,) = (tmp_path / "sweeps" / "backbones").glob("*.safetensors")
    for name in ("first", "second"):
        (fetched,) = (tmp_path / name / "backbones").glob("*.safetensors")
        assert fetched.name == published.name
