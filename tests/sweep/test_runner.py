"""Whole sweeps in a real Ray on this machine: small, with no part replaced by a fake."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.errors import SweepError
from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.runner import Outcome, Snapshot, new_sweep_name, run_sweep

from ..small_sweep import NOISE, ends, events, journal_of, mlflow_runs, optuna_states, write_sweep

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(warning) for warning in NOISE)]
STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "killed": "FAIL"}


@dataclass
class EndedSweep:
    """A sweep that has ended."""

    folder: Path
    outcome: Outcome
    snapshots: list[Snapshot]

    @property
    def events(self) -> list[dict[str, Any]]:
        return events(journal_of(self.folder))

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


def run_small_sweep(folder: Path, watch: Any = lambda snapshot: None, **changes: Any) -> EndedSweep:
    plan = make_plan(load_config(write_sweep(folder, **changes)))
    snapshots: list[Snapshot] = []

    def see(snapshot: Snapshot) -> None:
        snapshots.append(snapshot)
        watch(snapshot)

    name = new_sweep_name(plan.config.name)
    with Cluster() as cluster:
        outcome = run_sweep(plan, sweep=name, cluster=cluster, watch=see, stop=threading.Event())
    return EndedSweep(folder, outcome, snapshots)


@pytest.fixture
def lane_killer() -> Any:
    """Kill the first lane that trains, once."""
    killed: list[tuple[int, int]] = []

    def watch(snapshot: Snapshot) -> None:
        training = [(n, status.pid) for n, status in snapshot.lanes.items() if status.working]
        if training and not killed and snapshot.expected_lanes == len(snapshot.lanes):
            killed.append(training[0])
            os.kill(training[0][1], signal.SIGKILL)

    watch.killed = killed  # type: ignore[attr-defined]
    return watch


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> EndedSweep:
    """A sweep that runs undisturbed."""
    # Four steps are few: with the first rate and this batch a probe of the mean is far better than always answering one
    # label, on any processor; with the second rate it learns nothing and is stopped, once there is one of the first.
    # Of 20 trials some come after that, whatever the lanes' times are.
    rates = {"learning_rate": {"choices": [0.1, 0.0001]}}
    probe = {**rates, "batch_size": {"value": 32}, "pooling": {"value": "mean"}, "dropout": {"value": 0.0}}
    return run_small_sweep(
        tmp_path_factory.mktemp("swept"),
        methods=["lora", "linear_probe", "prefix"],
        budget={"trials": 20},
        search_space={"lora": rates, "linear_probe": probe},
    )


def test_sweep_ends_every_trial_once_and_as_in_optuna(swept: EndedSweep) -> None:
    ended = ends(swept.events)
    assert len(ended) == 20
    assert optuna_states(swept.outcome.folder) == {trial: STATES[state] for trial, state in ended.items()}
    assert set(ended.values()) == {"complete", "pruned"}
    assert {str(r.key): r.state for r in swept.outcome.trials} == ended


def test_sweep_writes_its_journal_in_order(swept: EndedSweep) -> None:
    journal = swept.events
    kinds = [event["event"] for event in journal]
    assert (kinds[0], kinds[-1], kinds.count("close")) == ("sweep", "close", 1)
    assert journal[-1]["reason"] == swept.outcome.reason == "finished"
    assert kinds.index("test") > max(i for i, kind in enumerate(kinds) if kind == "end")
    assert kinds.index("registered") > kinds.index("test")
    times = [event["time"] for event in journal]
    assert times == sorted(times)


def test_sweep_trials_report_every_rung_in_order(swept: EndedSweep) -> None:
    ladder = [1, 2, 4]
    steps: dict[str, list[int]] = {}
    curves: dict[str, list[float]] = {}
    for event in swept.events:
        if event["event"] == "rung":
            steps.setdefault(event["trial"], []).append(event["step"])
            assert event["value"] == event["metrics"]["accuracy"]
            assert event["measurements"]["trainable_parameters"] > 0
            curves.setdefault(event["trial"], []).extend(event["curve"]["step"])
    for trial, state in ends(swept.events).items():
        assert steps[trial] == ladder[: len(steps[trial])]
        assert (steps[trial] == ladder) == (state == "complete")
        assert curves[trial] == list(range(1, steps[trial][-1] + 1)), "each step once, whichever lane took it"


def test_sweep_has_an_mlflow_run_for_every_trial(swept: EndedSweep) -> None:
    runs = {run.data.tags.get("trial_key", ""): run for run in mlflow_runs(swept.uri)}
    ended = ends(swept.events)
    assert set(ended) <= set(runs), sorted(runs)
    for trial, state in ended.items():
        run = runs[trial]
        assert run.data.tags["method"] == trial.split("/")[1]
        assert run.data.tags["task"] == "mail"
        assert run.data.tags["sweep"] == swept.outcome.sweep
        assert run.info.status == ("KILLED" if state == "pruned" else "FINISHED")
        assert float(run.data.params["learning_rate"]) > 0
        assert run.data.metrics["validation_accuracy"] >= 0


def test_sweep_registers_the_champion_and_tied_methods(swept: EndedSweep) -> None:
    from orchestrator.tracking.browse import list_models

    *others, model = list_models(swept.uri)
    outcome = swept.outcome.tasks["mail"]
    champion = outcome.champion
    assert (model["name"], model["version"], model["aliases"]) == ("mail", 1, ["champion"])
    assert model["tags"]["method"] == model["tags"]["recommended"] == champion.method
    assert (outcome.selection.state, model["tags"]["state"]) == ("recommended", "recommended")
    assert sorted(other["tags"]["method"] for other in others) == sorted(outcome.selection.tied[1:])
    assert all(other["tags"]["role"] == "tied" for other in others)
    completed = [r for r in swept.outcome.trials if r.key.study == champion.key.study and r.state == "complete"]
    assert champion.validation == max(record.value for record in completed)
    assert champion.interval[0] <= champion.mean_score <= champion.interval[1]


def test_sweep_s_models_carry_no_rows_and_verify_by_its_data(swept: EndedSweep) -> None:
    from orchestrator.sweep.recorded_rows import rows_in
    from orchestrator.tracking.browse import show_model
    from orchestrator.tracking.verify import verify

    verification = verify("mail/1", swept.uri, find_rows=rows_in(str(swept.outcome.folder.parent)))
    assert verification.ok
    model = show_model("mail/1", swept.uri)
    assert verification.rows == int(model["tags"]["test_rows"])
    assert model["tags"]["test_rows_kept"] == "false"
    runs = {run.info.run_id: run.data.tags["key"] for run in mlflow_runs(swept.uri)}
    assert runs[model["run_id"]] == swept.outcome.tasks["mail"].champion.trial
    if "PeftModel" in model["description"]:
        assert "get another answer" in model["description"]


def test_sweep_keeps_adapters_that_are_of_use_and_no_states(swept: EndedSweep) -> None:
    folder = swept.outcome.folder / "checkpoints"
    stored = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    assert [file for file in stored if file.name == "state.safetensors" or "under-way" in file.parts] == []
    complete = {trial for trial, state in ends(swept.events).items() if state == "complete"}
    rungs = {"/".join(file.parts[:4]) for file in stored if len(file.parts) > 3}
    assert {rung for rung in rungs if not rung.endswith("-test") and "seed-" not in rung} == {
        f"{trial}/step-4" for trial in complete
    }, "of trials that ended before, nothing is left but what the final scored"


def test_sweep_log_holds_no_warning_and_no_traceback(swept: EndedSweep) -> None:
    lines = (swept.outcome.folder / "sweep.log").read_text().splitlines()
    assert lines
    marks = ("WARN", "Warning", "ERROR", "Traceback", "Failed")
    assert [line for line in lines if any(mark in line for mark in marks)] == []


def test_sweep_keeps_its_lanes_to_the_end(swept: EndedSweep) -> None:
    pids = {(n, status.pid) for snapshot in swept.snapshots for n, status in snapshot.lanes.items()}
    assert len(pids) == swept.snapshots[-1].expected_lanes


def test_sweep_loses_no_trial_when_a_lane_is_killed(tmp_path: Path, lane_killer: Any) -> None:
    ended_sweep = run_small_sweep(
        tmp_path, watch=lane_killer, budget={"trials": 8}, training={"max_steps": 60, "max_length": 16}
    )
    ((lane, pid),) = lane_killer.killed
    assert set(ends(ended_sweep.events).values()) <= {"complete", "pruned"}
    assert len(ends(ended_sweep.events)) == 8
    pids: dict[int, list[int]] = {}
    for snapshot in ended_sweep.snapshots:
        for number, status in snapshot.lanes.items():
            if status.pid not in pids.setdefault(number, []):
                pids[number].append(status.pid)
    assert pids.pop(lane)[0] == pid
    assert all(len(attempts) == 1 for attempts in pids.values()), "the other lane keeps its process"


def assert_closed(folder: Path) -> None:
    """Assert that no trial is open in the journal, in Optuna or in MLflow."""
    journal = journal_of(folder)
    assert set(ends(events(journal)).values()) == {"pruned"}, "the budget ends trials by a decision"
    assert events(journal)[-1]["event"] == "close"
    assert not {"RUNNING", "WAITING"} & set(optuna_states(journal.parent).values())
    runs = mlflow_runs(f"sqlite:///{folder / 'mlflow.db'}")
    assert runs
    assert [run.data.tags for run in runs if run.info.status == "RUNNING"] == []


def endless_training(wall_time: str, first_rung: int) -> dict[str, Any]:
    return {
        "methods": ["linear_probe"],
        "budget": {"wall_time": wall_time},
        "training": {"max_steps": 1_000_000, "max_length": 16},
        "search": {"first_rung": first_rung / 1_000_000, "reduction_factor": 1000},
    }


def test_sweep_wall_time_stops_trials_within_a_rung(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="no trial of task mail came to a result"):
        run_small_sweep(tmp_path, **endless_training("1s", first_rung=100_000))
    assert_closed(tmp_path)
