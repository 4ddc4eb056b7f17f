"""A small sweep on a Ray that lacks the internals which groups of lanes need: each lane is a trainer of its own."""

import sys
import threading
from pathlib import Path

import pytest
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig

from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.ray_train import has_replicas, lane_backend
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.runner import new_sweep_name, run_sweep

from ..small_sweep import NOISE, ends, events, write_sweep

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]


@pytest.mark.parametrize("missing", ["hook", "names"])
def test_plain_ray_train_has_no_replicas(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_replicas()
    assert type(lane_backend()) not in (BackendConfig, TorchConfig)
    if missing == "hook":
        monkeypatch.delattr(Backend, "has_replica_groups")
    else:
        monkeypatch.setitem(sys.modules, "orchestrator.lanes.trainer", None)
    assert not has_replicas()
    assert isinstance(lane_backend(), TorchConfig)


@pytest.mark.ray
def test_plain_ray_train_runs_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Backend, "has_replica_groups")
    monkeypatch.setitem(sys.modules, "orchestrator.lanes.trainer", None)
    config = write_sweep(tmp_path, methods=["lora"], lanes={"min": 2}, budget={"trials": 4}, selection={"seeds": 1})
    plan = make_plan(load_config(config))
    with Cluster() as cluster:
        sweep = new_sweep_name(plan.config.name)
        outcome = run_sweep(plan, sweep=sweep, cluster=cluster, watch=lambda _: None, stop=threading.Event())
    assert set(ends(events(outcome.folder / "journal.jsonl")).values()) <= {"complete", "pruned"}
    assert set(outcome.lanes) == {0, 1}, "each is a group of its own"
    assert outcome.tasks["mail"].registered
