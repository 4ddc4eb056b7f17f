"""What a registered model overrides of MLflow's class for Python models."""

from __future__ import annotations

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
