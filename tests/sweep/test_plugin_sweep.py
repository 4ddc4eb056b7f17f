"""A sweep over a plugin method and a composition with it: trained in lanes, registered, and loaded elsewhere."""

import shutil
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.recorded_rows import rows_in
from orchestrator.sweep.runner import Outcome, new_sweep_name, run_sweep
from orchestrator.tracking.verify import verify

from ..small_sweep import NOISE, ends, events, optuna_states, write_sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"
COMPOSITION = "compose:mine=my_method+adapter"
pytestmark = [pytest.mark.ray, pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in NOISE)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(EXAMPLE, folder)
    switch = {"choices": [True, False]}
    changes: dict[str, Any] = {
        "plugins": ["my_method.py"],
        "methods": ["my_method", COMPOSITION],
        "search_space": {COMPOSITION: {"layer_0": switch, "adapter.bottleneck": {"choices": [2, 4]}}},
        "budget": {"trials": 5},
        "storage": f"file://{folder / 'sweeps'}",
    }
    plan = make_plan(load_config(write_sweep(folder, **changes)))
    sweep = new_sweep_name(plan.config.name)
    with Cluster() as cluster:
        return folder, run_sweep(plan, sweep=sweep, cluster=cluster, watch=lambda _: None, stop=threading.Event())


def test_plugin_sweep_trains_the_plugin_in_lanes(swept: tuple[Path, Outcome]) -> None:
    folder, outcome = swept
    journal = events(outcome.folder / "journal.jsonl")
    ended = ends(journal)
    assert len(ended) == 5
    assert set(ended.values()) <= {"complete", "pruned"}
    assert {trial.split("/")[1] for trial in ended} == {"my_method", COMPOSITION}
    assert set(optuna_states(outcome.folder)) == set(ended)
    configured = next(event["config"] for event in journal if event["event"] == "sweep")
    assert configured["plugins"] == [str(folder / "my_method.py")]


def test_plugin_sweep_checkpoints_have_portable_names(swept: tuple[Path, Outcome]) -> None:
    _, outcome = swept
    names = {path.name for path in (outcome.folder / "checkpoints" / "mail").iterdir()}
    assert names == {"my_method", "compose.mine~my_method-adapter"}


def test_plugin_sweep_model_loads_in_a_fresh_process(swept: tuple[Path, Outcome]) -> None:
    folder, outcome = swept
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    verification = verify("mail/1", uri, find_rows=rows_in(str(outcome.folder.parent)))
    assert verification.ok
    assert verification.rows > 0


def test_plugin_sweep_model_carries_the_plugin_as_code(swept: tuple[Path, Outcome]) -> None:
    folder, _ = swept
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    model = Path(mlflow.artifacts.download_artifacts("models:/mail/1", dst_path=str(folder / "model")))
    assert (model / "code" / "method_plugins" / "my_method.py").read_text() == EXAMPLE.read_text()
    assert not list((model / "artifacts").rglob("*.py"))
