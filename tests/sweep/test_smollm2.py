"""The second example on its real decoder: three methods, a causal language model, registered and reproduced."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.runner import run_sweep
from orchestrator.tracking.verify import verify

from ..small_sweep import NOISE, ends, events

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2.yaml"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.exhaustive,
    *(pytest.mark.filterwarnings(warning) for warning in NOISE),
]


def test_smollm2_example_registers_a_reproducible_model(tmp_path: Path) -> None:
    config = load_config(EXAMPLE)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    changes = {"storage": str(tmp_path / "sweeps"), "mlflow": config.mlflow.model_copy(update={"tracking_uri": uri})}
    plan = make_plan(config.model_copy(update=changes))
    with Cluster() as cluster:
        outcome = run_sweep(plan, sweep="smollm2", cluster=cluster, watch=lambda _: None, stop=threading.Event())

    assert set(ends(events(outcome.folder / "journal.jsonl")).values()) == {"complete"}
    task = outcome.tasks["sentiment"]
    assert {result.method for result in task.selection.finalists} == {"lora", "ia3", "prompt"}
    assert 1 <= task.champion.mean_score < 2, "three possible words: an untrained decoder is far above"
    assert task.champion.mean_score == min(result.mean_score for result in task.tied)
    assert all("forgetting" in result.measurements for result in task.selection.finalists)
    assert verify("sentiment@champion", uri).ok
