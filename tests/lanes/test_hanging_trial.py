"""A whole sweep in which a trial of a plugin hangs: in a pack, and then twice alone."""

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.step_watch import HangLimits
from orchestrator.planning.plan import make_plan
from orchestrator.sweep import prepare
from orchestrator.sweep.runner import new_sweep_name, run_sweep

from ..small_sweep import NOISE, events, write_sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"
HANG = '''
import threading


def hang_in_third_step(scale: Any) -> None:
    """In a lane, wait for ever in a trial's third training pass."""
    if "TrainingThread" in threading.current_thread().name and torch.is_grad_enabled():
        scale.passes = getattr(scale, "passes", 0) + 1
        if scale.passes == 3:
            threading.Event().wait()
'''
pytestmark = [pytest.mark.ray, pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in NOISE)]


def test_trial_that_hangs_fails_alone_and_its_neighbours_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = EXAMPLE.read_text().replace(
        '"""Multiplies the residual', 'hang_in_third_step(self)\n        """Multiplies the residual'
    )
    (tmp_path / "my_method.py").write_text(plugin + HANG)
    monkeypatch.setattr(prepare, "HANG_LIMITS", HangLimits(least_s=6.0, first_s=60.0))
    with_neighbour = _ends(tmp_path / "sweeps", methods=["lora", "my_method"], budget={"trials": 3})
    alone = _ends(tmp_path / "alone", methods=["lora"], budget={"trials": 2})
    hanging = with_neighbour.pop("mail/my_method/0")
    assert hanging["state"] == "failed"
    assert "hung at step 3, training: nothing happened for" in hanging["reason"]
    log = next((tmp_path / "sweeps").glob("*/sweep.log")).read_text()
    assert "in hang_in_third_step" in log, "the stacks name the function that hangs"
    assert with_neighbour.keys() == alone.keys() == {"mail/lora/0", "mail/lora/1"}
    for trial, end in alone.items():
        assert with_neighbour[trial]["state"] == end["state"] == "complete"
        assert with_neighbour[trial]["value"] == pytest.approx(end["value"], abs=1e-6)


def _ends(storage: Path, **changes: Any) -> dict[str, Any]:
    """Run a sweep; return how each trial ended."""
    config = write_sweep(
        storage.parent,
        storage=str(storage),
        plugins=["my_method.py"] if "my_method" in changes["methods"] else [],
        lanes={"max": 1, "pack": 3},
        training={"max_steps": 12, "max_length": 16},
        search={"sampler": "random", "early_stopping": False, "allocation": "round_robin", "min_results": 2},
        selection={"seeds": 1},
        **changes,
    )
    plan = make_plan(load_config(config))
    name = new_sweep_name(plan.config.name)
    with Cluster() as cluster:
        outcome = run_sweep(plan, sweep=name, cluster=cluster, watch=lambda _: None, stop=threading.Event())
    return ends_of(outcome.folder)


def ends_of(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return each trial's ``end`` event, with the value of its last rung."""
    journal = events(sweep / "journal.jsonl")
    values = {event["trial"]: event["value"] for event in journal if event["event"] == "rung"}
    return {
        event["trial"]: {**event, "value": values.get(event["trial"])} for event in journal if event["event"] == "end"
    }
