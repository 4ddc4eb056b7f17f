"""MLflow's runs after a driver was lost with the last events of its journal, and another one went on without them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.tracking.connection import open_client
from orchestrator.tracking.runs import RunWriter

from .conftest import Story


def write(story: Story, uri: str) -> None:
    from orchestrator.journal.events import Journal

    writer = RunWriter(uri, "airline")
    for event in Journal.read(story.path):
        writer.write(event)


def test_lost_trials_leave_runs_that_count_no_more(tmp_path: Path, uri: str) -> None:
    lost, resumed = Story(tmp_path / "lost.jsonl"), Story(tmp_path / "resumed.jsonl")
    for story in (lost, resumed):
        story.sweep()
        story.trial("lora", 0, {25: 0.5})
    lost.trial("lora", 1, {25: 0.4})
    lost.trial("ia3", 0, {25: 0.3})
    write(lost, uri)
    resumed.journal.append("resume", sweep="airline-20261121-220300")
    resumed.journal.append("trial", trial="airline/lora/1", params={"rank": 16, "learning_rate": 0.5}, seed=7)
    resumed.journal.append("end", trial="airline/lora/1", state="pruned", reason="", lane_seconds=0.0)
    for _ in range(2):  # an exporter may start anew
        write(resumed, uri)
    resumed.journal.append("close", reason="finished", message="")
    write(resumed, uri)
    client = open_client(uri)
    experiment = client.get_experiment_by_name("airline")
    assert experiment
    runs = {run.data.tags["key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == [
        "airline", "airline/lora/0", "airline/lora/1", "lost airline/ia3/0", "lost airline/lora/1",
    ]  # fmt: skip
    assert runs["airline/lora/1"].data.params["rank"] == "16"
    assert runs["airline/lora/1"].info.status == "KILLED"
    assert {runs[key].info.status for key in runs if key.startswith("lost")} == {"KILLED"}
