"""The code that MLflow loads a registered adapter with: a data frame of inputs in, a data frame of answers out.

MLflow keeps this file with the model and runs it; nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from orchestrator.tasks.inputs import from_arrow
from orchestrator.tracking.predictor import Predictor
from orchestrator.tracking.served_rows import served_rows

BUNDLE_ARTIFACT = "bundle"


class AdapterModel(PythonModel):
    """A frozen backbone with its adapter."""

    predictor: Predictor
    folder: Path
    """The bundle's folder."""

    def load_context(self, context: PythonModelContext) -> None:
        """Attach the adapter to its backbone; once per process."""
        self.folder = Path(context.artifacts[BUNDLE_ARTIFACT])
        self.predictor = Predictor.load(self.folder)

    def predict(
        self, context: PythonModelContext | None, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the answers to inputs.

        Args:
            context: Not used; ``load_context`` has read it.
            model_input: A data frame with one row per input; where the model reads one column, also its values alone,
                which the annotation does not say: MLflow would warn of any other one, or check inputs by it.
            params: Not used; the model takes none.

        Returns:
            One row per input, with the columns of the signature.

        Raises:
            MlflowException: If a row cannot be used, with one line that says which and why.
        """
        try:
            rows = served_rows(model_input, self.predictor.bundle.input_schema)
            answers = self.predictor.predict(rows)
        except ValueError as error:  # MLflow's server answers any other error with its paths
            raise MlflowException.invalid_parameter_value(str(error)) from None
        frame: pd.DataFrame = answers.to_pandas()
        for name, kind in self.predictor.type.answer_columns(self.predictor.bundle.labels).items():
            if kind not in ("string", "double", "long"):  # as lists and not as arrays, which JSON does not know
                frame[name] = from_arrow(answers[name], kind)
        return frame


set_model(AdapterModel())
