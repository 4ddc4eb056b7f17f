"""The mirror against a real MLflow, and its thread against a writer that fails on demand."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from orchestrator.common.errors import InputError, SweepError
from orchestrator.tracking.connection import check_uri, open_client
from orchestrator.tracking.mlflow_exporter import MlflowExporter
from orchestrator.tracking.run_values import flat
from orchestrator.tracking.runs import RunWriter

from .conftest import SWEEP, TASK, Story

Tell = Callable[[], None]


def mirrored(story: Story, uri: str) -> MlflowExporter:
    exporter = MlflowExporter(story.path, uri, "airline")
    exporter.start()
    assert exporter.flush(60), exporter.last_error
    assert exporter.pending == 0
    assert exporter.refused == 0
    return exporter


def runs(uri: str, asked: str = "") -> dict[str, Run]:
    client = open_client(uri)
    experiment = client.get_experiment_by_name("airline")
    assert experiment
    found = client.search_runs([experiment.experiment_id], asked)
    by_key = {run.data.tags["key"]: run for run in found}
    assert len(by_key) == len(found)
    return by_key


def test_exporter_writes_trials_as_child_runs(story: Story, tell: Tell, uri: str) -> None:
    tell()
    exporter = mirrored(story, uri)
    found = runs(uri)
    parent = exporter.parent_run_id("airline")
    states = {key: (run.info.status, run.data.tags["state"]) for key, run in found.items() if key != "airline"}
    assert states == {
        "airline/lora/0": ("FINISHED", "complete"),
        "airline/ia3/0": ("KILLED", "pruned"),
        "airline/prefix/0": ("FAILED", "failed"),
        "airline/prompt/0": ("KILLED", "killed"),
    }
    assert {run.data.tags.get("mlflow.parentRunId", parent) for run in found.values()} == {parent}
    assert found["airline"].info.run_id == parent
    assert exporter.close(10)


def test_exporter_writes_rungs_at_step_and_time(story: Story, tell: Tell, uri: str) -> None:
    tell()
    mirrored(story, uri).close(10)
    run = runs(uri)["airline/lora/0"]
    history = open_client(uri).get_metric_history(run.info.run_id, "validation_macro_f1")
    assert [(m.step, m.value) for m in history] == [(25, 0.5), (50, 0.6), (100, 0.8)]
    assert [m.timestamp for m in history] == [1_795_000_003_000, 1_795_000_004_000, 1_795_000_005_000]
    assert run.data.metrics["adapter_bytes"] == 400
    assert run.data.params == {"learning_rate": "0.001", "rank": "8", "seed": "7"}
    assert (run.info.start_time, run.info.end_time) == (1_795_000_002_000, 1_795_000_006_000)


def test_exported_runs_can_be_filtered_by_tags(story: Story, tell: Tell, uri: str) -> None:
    tell()
    mirrored(story, uri).close(10)
    asked = f"tags.method = 'lora' and tags.quantization = 'nf4' and tags.sweep = '{SWEEP}' and tags.task = 'airline'"
    assert list(runs(uri, asked)) == ["airline/lora/0"]
    assert list(runs(uri, "tags.state = 'pruned' and metrics.validation_macro_f1 < 0.5")) == ["airline/ia3/0"]


def test_exporter_parent_run_holds_config_data_and_end(story: Story, tell: Tell, uri: str) -> None:
    tell()
    story.journal.append(
        "test", trial="airline/lora/0", metrics={"macro_f1": 0.79}, checkpoint_score=0.79, interval=[0.7, 0.9],
        role="champion",
    )  # fmt: skip
    story.journal.append("registered", task="airline", name="airline", version=3, aliases=["champion"])
    story.journal.append("close", reason="interrupted", message="Ctrl-C")
    mirrored(story, uri).close(10)
    parent = runs(uri)["airline"]
    assert parent.info.status == "KILLED"
    assert parent.data.params["tasks.airline.text"] == "text"
    assert parent.data.tags["data_digest"] == TASK["digest"]
    assert parent.data.tags["registered_version"] == "3"
    assert parent.data.metrics["test_macro_f1"] == 0.79
    assert parent.inputs
    (used,) = parent.inputs.dataset_inputs
    assert used.dataset.name == "airline"
    assert json.loads(used.dataset.source)["uri"] == "mail.csv"
    assert json.loads(used.dataset.schema or "")["mlflow_colspec"][0]["name"] == "body"
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "train, validation, test"}
    assert parent.data.params["rows_train"] == "60"
    assert not {"rows_train", "majority", "backbone_parameters"} & parent.data.metrics.keys()
    file = open_client(uri).download_artifacts(parent.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(file).read_text())["seed"] == 0


def test_exporter_closes_open_trials_until_the_sweep_is_resumed(story: Story, tell: Tell, uri: str) -> None:
    tell()
    story.journal.append("trial", trial="airline/lora/1", params={"rank": 4}, seed=7)
    story.journal.append("rung", trial="airline/lora/1", step=25, value=0.4, metrics={}, measurements={})
    story.journal.append("close", reason="interrupted", message="")
    mirrored(story, uri).close(10)
    before = runs(uri)
    assert (before["airline/lora/1"].info.status, before["airline/lora/1"].data.tags["state"]) == ("KILLED", "open")
    assert before["airline"].info.status == "KILLED"

    story.journal.append("resume", sweep=SWEEP)
    mirrored(story, uri).close(10)
    found = {key: run.info.status for key, run in runs(uri).items()}
    assert found == {key: run.info.status for key, run in before.items()} | dict.fromkeys(
        ["airline", "airline/lora/1"], "RUNNING"
    )

    story.journal.append("end", trial="airline/lora/1", state="pruned", reason="behind", lane_seconds=0.0)
    story.journal.append("close", reason="finished", message="")
    mirrored(story, uri).close(10)
    after = runs(uri)
    assert (after["airline/lora/1"].info.status, after["airline"].info.status) == ("KILLED", "FINISHED")
    assert after["airline/lora/1"].data.tags["state"] == "pruned"
    assert {key: run.info.run_id for key, run in after.items()} == {k: run.info.run_id for k, run in before.items()}


def test_exporter_logs_measurements_of_the_final_at_the_last_step(story: Story, tell: Tell, uri: str) -> None:
    tell()
    story.journal.append(
        "test",
        trial="airline/lora/0",
        role="champion",
        step=100,
        checkpoint_score=0.79,
        interval=[0.7, 0.9],
        metrics={"macro_f1": 0.79},
        measurements={"adapter_bytes": 500.0, "latency_overhead_1": 0.1, "mergeable": 1.0},
    )
    mirrored(story, uri).close(10)
    assert list(runs(uri, "metrics.latency_overhead_1 < 0.2 and tags.method = 'lora'")) == ["airline/lora/0"]
    found = runs(uri)
    trial = found["airline/lora/0"].data.metrics
    assert (trial["adapter_bytes"], trial["final_adapter_bytes"]) == (400, 500), "its own, and its retraining's"
    assert trial["mergeable"] == 1


def test_artifacts_of_a_sqlite_store_are_beside_its_file(
    story: Story, tell: Tell, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tell()
    mirrored(story, uri).close(10)
    assert list((tmp_path / "mlruns" / "airline").rglob("config.yaml"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_exporter_started_again_writes_nothing_twice(story: Story, tell: Tell, uri: str) -> None:
    tell()
    first = mirrored(story, uri)
    first.close(10)
    story.sweep(seed=1)  # a resumed sweep, whose config may differ
    second = mirrored(story, uri)
    assert second.parent_run_id("airline") == first.parent_run_id("airline")
    second.close(10)
    found = runs(uri)
    assert len(found) == 5
    assert found["airline"].info.status == "RUNNING"
    assert found["airline/lora/0"].info.status == "FINISHED"
    history = open_client(uri).get_metric_history(found["airline/lora/0"].info.run_id, "validation_macro_f1")
    assert len(history) == 3


def test_exporter_creates_no_second_run_after_a_lost_response(
    story: Story, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(uri, "airline")
    create = writer._store.client.create_run
    lost: list[str] = []

    def create_and_lose(*args: Any, **kwargs: Any) -> Run:
        run = create(*args, **kwargs)
        if len(lost) < 2:
            lost.append(run.info.run_id)
            raise MlflowException("the answer was lost", TEMPORARILY_UNAVAILABLE)
        return run

    monkeypatch.setattr(writer._store.client, "create_run", create_and_lose)
    story.sweep()
    story.trial("lora", 0, {25: 0.5})
    exporter = MlflowExporter(story.path, uri, "airline", poll=0.01, writer=lambda: writer)
    exporter.start()
    assert exporter.flush(60)
    assert sorted(run.info.run_id for run in runs(uri).values()) == sorted(lost)
    exporter.close(10)


class Scripted:
    """A writer that is away until it is told to be back."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.back, self.tried = threading.Event(), threading.Event()
        self.error: Exception = ConnectionError("nobody there\nand a long story")

    def write(self, event: dict[str, Any]) -> None:
        self.tried.set()
        if not self.back.is_set():
            raise self.error
        self.written.append(event["event"])

    def recall(self) -> None:
        pass

    experiment_id = ""

    def run_id(self, key: str) -> str | None:
        return "run" if "sweep" in self.written else None


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def exporter(story: Story, scripted: Scripted) -> MlflowExporter:
    return MlflowExporter(story.path, "nowhere", "airline", poll=0.01, longest_pause=0.02, writer=lambda: scripted)


def test_exporter_writes_delayed_events_in_order(
    story: Story, tell: Tell, scripted: Scripted, exporter: MlflowExporter
) -> None:
    exporter.start()
    tell()
    assert scripted.tried.wait(10)
    assert not exporter.flush(0.05)
    assert exporter.pending == 14
    assert exporter.last_error == "nobody there"
    scripted.back.set()
    assert exporter.flush(10)
    assert scripted.written == [event["event"] for event in story.journal.read(story.path)]
    assert (exporter.pending, exporter.last_error) == (0, "")
    assert exporter.close(10)


def test_exporter_tells_once_that_mlflow_is_away_and_once_that_it_is_back(
    tell: Tell, scripted: Scripted, exporter: MlflowExporter, caplog: pytest.LogCaptureFixture
) -> None:
    exporter.start()
    tell()
    assert scripted.tried.wait(10)
    assert not exporter.flush(0.2)  # many attempts
    scripted.back.set()
    assert exporter.flush(10)
    away, back = caplog.messages
    assert away == "MLflow cannot be reached; its events wait in the journal: nobody there"
    assert back == "MLflow takes events again"
    assert exporter.close(10)


def test_exporter_close_ends_in_time_without_a_server(tell: Tell, scripted: Scripted, exporter: MlflowExporter) -> None:
    exporter.start()
    tell()
    assert scripted.tried.wait(10)
    assert not exporter.close(0.05)
    exporter._thread.join(10)
    assert not exporter._thread.is_alive()
    assert exporter.pending == 14


def test_exporter_takes_the_end_of_a_sweep_that_never_began(story: Story, uri: str) -> None:
    story.journal.append("close", reason="failed", message="the rows cannot be read")
    assert mirrored(story, uri).close(10)


def test_exporter_skips_a_refused_event(
    story: Story, scripted: Scripted, exporter: MlflowExporter, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.error = MlflowException("no such key", INVALID_PARAMETER_VALUE)
    exporter.start()
    story.sweep()
    assert exporter.flush(10)
    assert exporter.refused == 1
    assert "no such key" in caplog.text
    scripted.back.set()
    story.trial("lora", 0, {})
    assert exporter.flush(10)
    assert scripted.written == ["trial", "end"]
    exporter.close(10)


def test_exporter_waits_for_the_parent_run(story: Story, scripted: Scripted, exporter: MlflowExporter) -> None:
    exporter.start()
    story.sweep()
    assert scripted.tried.wait(10)
    with pytest.raises(SweepError, match="airline: nobody there"):
        exporter.parent_run_id("airline", timeout=0.05)
    scripted.back.set()
    assert exporter.parent_run_id("airline", timeout=10) == "run"
    exporter.close(10)


def test_exporter_ends_with_a_damaged_journal(story: Story, scripted: Scripted, exporter: MlflowExporter) -> None:
    story.path.write_text("not json\n")
    exporter.start()
    assert not exporter.flush(10)
    assert "line 1 is no event" in exporter.last_error
    assert not exporter.close(1)


def test_flat_settings_have_dotted_names() -> None:
    assert flat({"a": {"b": 1, "c": None}, "d": [2]}) == {"a.b": 1, "d": [2]}


def test_exporter_survives_hours_without_a_server(tell: Tell, scripted: Scripted, exporter: MlflowExporter) -> None:
    exporter._failures = 5000
    exporter.start()
    tell()
    assert scripted.tried.wait(10)
    scripted.back.set()
    assert exporter.flush(10)


@pytest.mark.parametrize(
    "uri", ["localhost:5000", "mlflow.db", "sqlite:///no/such/folder/mlflow.db", "ftp://here", "postgresql://h:port/db"]
)
def test_check_uri_refuses_unknown_schemes(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        check_uri(uri, "mlflow.tracking_uri")
    assert len(caught.value.lines()) == 1
    assert caught.value.lines()[0].startswith("mlflow.tracking_uri: ")


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://here:5000", "postgresql+psycopg://u:p@h/db"])
def test_check_uri_accepts_known_schemes(uri: str) -> None:
    check_uri(uri, "mlflow.tracking_uri")


def test_check_uri_names_a_missing_database_driver() -> None:
    with pytest.raises(InputError, match=r"needs a package that is not installed .*MySQLdb") as caught:
        check_uri("mysql://ada:secret@here/db", "mlflow.tracking_uri")
    assert "secret" not in str(caught.value)


def test_exported_runs_keep_their_names_and_have_score_and_state(story: Story, tell: Tell, uri: str) -> None:
    tell()
    mirrored(story, uri).close(10)
    names = {key: run.info.run_name for key, run in runs(uri).items()}
    assert names == {
        "airline": f"{SWEEP}/airline",
        "airline/lora/0": "lora-0",
        "airline/ia3/0": "ia3-0",
        "airline/prefix/0": "prefix-0",
        "airline/prompt/0": "prompt-0",
    }
    ended = runs(uri, "tags.kind = 'trial' and metrics.validation_macro_f1 < 0.5")
    assert {key: run.data.tags["state"] for key, run in ended.items()} == {
        "airline/ia3/0": "pruned",
        "airline/prompt/0": "killed",
    }
    run = runs(uri)["airline/lora/0"].data
    assert run.metrics["validation_macro_f1"] == 0.8
    assert "value" not in run.metrics


def test_exporter_logs_the_curves_of_trials(story: Story, uri: str) -> None:
    story.sweep()
    story.journal.append("trial", trial="airline/lora/0", params={"rank": 4}, seed=7)
    curves = [
        {"step": [5.0, 10.0], "loss": [1.5, 1.25], "tokens_per_second": [None, 900.0]},
        {"step": [15.0], "loss": [80.0], "tokens_per_second": [880.0]},
    ]
    story.journal.append("rung", trial="airline/lora/0", step=10, value=0.4, lane_seconds=0.0, curve=curves[0])
    story.journal.append("end", trial="airline/lora/0", state="failed", reason="the loss is inf", curve=curves[1])
    mirrored(story, uri).close(10)
    mirrored(story, uri).close(10)  # again from the start
    run, client = runs(uri)["airline/lora/0"].info.run_id, open_client(uri)

    def curve(name: str) -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in client.get_metric_history(run, f"train/{name}")]

    assert curve("loss") == [(5, 1.5), (10, 1.25), (15, 80.0)]
    assert curve("tokens_per_second") == [(10, 900.0), (15, 880.0)]
