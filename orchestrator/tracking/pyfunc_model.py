"""The code that MLflow loads a registered adapter with: a data frame of inputs in, a data frame of answers out.

MLflow keeps this file with the model and runs it; nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from orchestrator.tracking.predictor import Predictor

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
            model_input: One row per input, in the column that the signature names.
            params: Not used; the model takes none.

        Returns:
            One row per input, with the columns of the signature.
        """
        inputs = model_input[self.predictor.bundle.column].tolist()
        answers: pd.DataFrame = self.predictor.predict(inputs).to_pandas()
        return answers


set_model(AdapterModel())
