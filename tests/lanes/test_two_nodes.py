"""A sweep over two Ray nodes. Both are this machine, but each has its own cache and its own object store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..small_sweep import NOISE, ends, events, journal_of, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow, *(pytest.mark.filterwarnings(line) for line in NOISE)]


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


def test_two_nodes_share_a_sweep_and_fetch_the_backbone_once(tmp_path: Path, address: str) -> None:
    config = write_sweep(tmp_path, lanes={"min": 2}, training={"max_steps": 60}, budget={"trials": 10})
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(config), "--address", address, "--json"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True, timeout=400)
    outcome = json.loads(done.stdout)

    assert set(ends(events(journal_of(tmp_path))).values()) <= {"complete", "pruned"}
    assert outcome["tasks"]["mail"]["version"] == 1
    assert len(outcome["lanes"]) == 2
    assert all(busy > 0 for busy in outcome["lanes"].values()), "both were at work"
    (published,) = (tmp_path / "sweeps" / "backbones").glob("*.safetensors")
    for name in ("first", "second"):
        (fetched,) = (tmp_path / name / "backbones").glob("*.safetensors")
        assert fetched.name == published.name, "each node has a copy of its own, so each had a lane"
