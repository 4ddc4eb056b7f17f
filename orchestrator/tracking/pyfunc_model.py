"""The code that MLflow loads a registered adapter with: a data frame of texts in, one of labels out.

MLflow keeps this file with the model and runs it; no object is pickled.
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
    """The bundle's."""

    def load_context(self, context: PythonModelContext) -> None:
        """Attach the adapter to its backbone; once per process."""
        self.folder = Path(context.artifacts[BUNDLE_ARTIFACT])
        self.predictor = Predictor.load(self.folder)

    def predict(
        self, context: PythonModelContext | None, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Label texts, or complete prompts.

        Args:
            context: not needed any more.
            model_input: one row per text, in the column that the signature names.
            params: none are known.

        Returns:
            One row per text: ``label`` and ``probability_LABEL`` for each label, or ``completion``.
        """
        bundle = self.predictor.bundle
        answers, probabilities = self.predictor.predict(model_input[bundle.column].tolist())
        if bundle.type == "causal-lm":
            return pd.DataFrame({"completion": answers})
        columns = [f"probability_{label}" for label in bundle.labels]
        found = pd.DataFrame(probabilities, columns=columns)
        found.insert(0, "label", answers)
        return found


set_model(AdapterModel())
