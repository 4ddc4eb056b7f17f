"""What a registered model overrides of MLflow's class for Python models."""

from __future__ import annotations

from pathlib import Path

import pytest

from .reliance import parameters, relied_on

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported


@relied_on(
    "mlflow.pyfunc.model.PythonModel.load_context",
    "mlflow.pyfunc.model.PythonModel.predict",
    by="orchestrator/tracking/pyfunc_model.py",
)
def test_mlflow_python_model_signatures() -> None:
    from mlflow.pyfunc.model import PythonModel

    assert parameters(PythonModel.load_context) == "self, context"
    assert parameters(PythonModel.predict) == "self, context, model_input, params"


@relied_on("mlflow.types.schema.AnyType", "mlflow.types.schema.Array", by="orchestrator/tracking/packaging.py")
def test_mlflow_columns_hold_lists_and_json() -> None:
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    schema = Schema([ColSpec(Array(DataType.string), "tokens"), ColSpec(AnyType(), "messages", required=False)])
    tokens, messages = schema.to_dict()
    assert (tokens["type"], tokens["items"]["type"], tokens["required"]) == ("array", "string", True)
    assert (messages["type"], messages["required"]) == ("any", False)


@relied_on("mlflow.utils.mlflow_tags.MLFLOW_LOGGED_ARTIFACTS", by="orchestrator/tracking/tables.py")
def test_mlflow_tags_tables_as_log_table_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from mlflow import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    monkeypatch.chdir(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("tables", str(tmp_path / "files"))).info.run_id
    client.log_table(run, {"row": [1]}, "samples.json")
    assert json.loads(client.get_run(run).data.tags[MLFLOW_LOGGED_ARTIFACTS]) == [
        {"path": "samples.json", "type": "table"}
    ]


@relied_on(
    "mlflow.utils.mlflow_tags.MLFLOW_MODEL_VERSIONS",
    "mlflow.entities.model_registry.ModelVersion",
    by="orchestrator/tracking/registry.py",
)
@relied_on("mlflow.utils.mlflow_tags.MLFLOW_DATASET_CONTEXT", by="orchestrator/tracking/runs.py")
def test_mlflow_lists_versions_of_a_logged_model_in_a_tag() -> None:
    """``register_model`` sets it and ``create_model_version`` does not; the pages read it as JSON."""
    import inspect

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking._model_registry import fluent
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_MODEL_VERSIONS

    assert (MLFLOW_MODEL_VERSIONS, MLFLOW_DATASET_CONTEXT) == ("mlflow.modelVersions", "mlflow.data.context")
    assert "mlflow_tags.MLFLOW_MODEL_VERSIONS: json.dumps(" in inspect.getsource(fluent)
    assert {"name", "version", "run_id", "description"} <= set(inspect.signature(ModelVersion).parameters)


def test_mlflow_database_has_the_tables_that_are_looked_at(tmp_path: Path) -> None:
    """``orchestrator/tracking/tracking_check.py`` reads them by SQL, since to import MLflow takes seconds."""
    import sqlite3
    from contextlib import closing

    from mlflow import MlflowClient

    from orchestrator.tracking.tracking_check import newest_revision

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.delete_experiment(client.create_experiment("gone"))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest_revision(),)]
        query = "SELECT name, lifecycle_stage FROM experiments ORDER BY experiment_id"
        assert database.execute(query).fetchall() == [("Default", "active"), ("gone", "deleted")]


def test_mlflow_pages_read_the_tags_of_saved_views() -> None:
    """The page of an experiment reads a shared view from a tag that only its script names."""
    import mlflow.server

    from orchestrator.tracking.runs_view import SHARED_VIEW, view_page

    folder = Path(mlflow.server.__file__).parent / "js" / "build" / "static" / "js"
    script = next(folder.glob("main.*.js")).read_text(encoding="utf-8")
    assert view_page("1", "sweep").endswith("viewStateShareKey=sweep")
    for name in (SHARED_VIEW, "viewStateShareKey"):
        assert f'"{name}"' in script


def test_mlflow_descriptions_have_the_length_of_its_database_columns() -> None:
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion

    from orchestrator.tracking.version_page import MAX_DESCRIPTION

    assert SqlModelVersion.__table__.c.description.type.length == MAX_DESCRIPTION
