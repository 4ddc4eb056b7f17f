"""Registered models without their test rows: digests and numbers, verified where the rows are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator.common.errors import SweepError
from orchestrator.tracking.bundle import EVALUATION
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.evaluation import rows_of, with_digests
from orchestrator.tracking.registry import register
from orchestrator.tracking.verify import verify

from .conftest import MakeBundle
from .small import Made


def test_bundle_without_rows_holds_no_text_and_no_label(make_bundle: MakeBundle) -> None:
    for kind in ("encoder", "decoder"):
        made = make_bundle(kind, keep_rows=False)
        table = parquet.read_table(made.folder / EVALUATION)
        assert set(table.column_names) <= {"row", "digest", "probabilities", "nll"}
        content = (made.folder / EVALUATION).read_bytes()
        assert not any(str(value).encode() in content for row in made.inputs for value in row.values())


def test_rows_of_recorded_predictions_are_found_by_digest() -> None:
    rows = pa.table({"row": [4, 7, 9], "text": ["a", "b", "c"], "label": [0, 1, 0]})
    recorded = with_digests(rows, pa.table({"row": [4, 7, 9], "nll": [0.1, 0.2, 0.3]}))
    shuffled = rows.take([2, 0, 1])
    assert rows_of(recorded, shuffled).equals(rows)
    with pytest.raises(SweepError, match="has no test row 7 any more"):
        rows_of(recorded, rows.take([0, 2]))
    with pytest.raises(SweepError, match="has changed: row 7 and 1 more differ"):
        rows_of(recorded, rows.set_column(1, "text", pa.array(["a", "B", "C"])))


@pytest.fixture
def registered(make_bundle: MakeBundle, uri: str, tmp_path: Path) -> Callable[..., Made]:
    def made(**changes: Any) -> Made:
        bundle, client = make_bundle(**changes), open_client(uri)
        run = client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id
        register(bundle.folder, run_id=run, tracking_uri=uri)
        return bundle

    return made


@pytest.mark.slow
def test_verify_compares_rows_that_the_model_does_not_carry(registered: Callable[..., Made], uri: str) -> None:
    made = registered(keep_rows=False)
    asked: list[tuple[str, str]] = []

    def find(sweep: str, task: str) -> pa.Table:
        asked.append((sweep, task))
        return made.rows

    verification = verify("mail/1", uri, find_rows=find)
    assert verification.ok
    assert verification.rows == made.rows.num_rows
    assert asked == [(made.bundle.sweep, "mail")]
    with pytest.raises(SweepError, match="carries digests of its test rows alone"):
        verify("mail/1", uri)


@pytest.mark.slow
def test_verify_of_a_model_with_rows_asks_for_none(registered: Callable[..., Made], uri: str) -> None:
    registered()
    assert verify("mail/1", uri, find_rows=lambda *_: pytest.fail("rows were asked for")).ok


def test_logged_model_shows_version_metrics_and_parameters(registered: Callable[..., Made], uri: str) -> None:
    made = registered()
    client = open_client(uri)
    (model,) = client.search_logged_models([client.get_experiment_by_name("mail").experiment_id])  # type: ignore[union-attr]
    assert model.name == "mail-lora-0"
    assert model.tags["mlflow.modelVersions"] == '[{"name": "mail", "version": "1"}]'
    metrics = {metric.key: metric.value for metric in model.metrics or []}
    assert metrics["mean_score"] == made.bundle.mean_score
    assert metrics["test_accuracy"] == made.bundle.metrics["accuracy"]
    assert {metric.dataset_name for metric in model.metrics or []} == {"mail"}
    assert model.params["rank"] == str(made.bundle.params["rank"])
    version = client.get_model_version("mail", "1")
    assert version.description
    assert version.run_id
    assert "models:/mail/1" in version.description
    assert "VERSION" not in version.description
    readme = mlflow.artifacts.download_artifacts(f"{model.artifact_location}/artifacts/bundle/README.md")
    assert "models:/mail/1" in Path(readme).read_text(encoding="utf-8")
    experiment = client.get_run(version.run_id).info.experiment_id
    assert f"[trial `mail/lora/0`](#/experiments/{experiment}/runs/{version.run_id})" in version.description
    saved = Path(model.artifact_location, "MLmodel").read_text(encoding="utf-8")
    assert str(made.folder.parent) not in saved
    assert str(Path(__file__).parents[2]) not in saved
