"""Whether a registered model still does what was recorded: loaded in a fresh process, compared row by row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.errors import SweepError

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.pyfunc import PyFuncModel

    from orchestrator.tracking.bundle import Bundle
    from orchestrator.tracking.predictor import Predictor

TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a fresh process found.

    Args:
        reference: what was asked for.
        version: what that was.
        rows: test rows that were compared.
        largest_difference: between a probability (or a completion's negative log-likelihood) then and now.
        score_recorded: the task's metric then.
        score_now: the task's metric now.
        notes: what is different here from where it was recorded.
    """

    reference: str
    version: int
    rows: int
    largest_difference: float
    score_recorded: float
    score_now: float
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row and the score are as recorded."""
        return self.largest_difference <= TOLERANCE and abs(self.score_now - self.score_recorded) <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "notes": list(self.notes), "ok": self.ok}


def verify(reference: str, tracking_uri: str, registry_uri: str | None = None) -> Verification:
    """Load a registered model in a fresh process and compare its predictions with the recorded ones.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        tracking_uri: as in the configuration.
        registry_uri: as in the configuration.

    Raises:
        InputError: if there is no such model.
        SweepError: if it cannot be loaded here.
    """
    from orchestrator.tracking.browse import find_version

    _, version = find_version(reference, tracking_uri, registry_uri)
    uri = f"models:/{version.name}/{version.version}"
    # -c rather than -m: a module that MLflow's loader imports again must not be __main__.
    command = [sys.executable, "-c", "from orchestrator.tracking.verify import main; main()", uri]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_REGISTRY_URI": registry_uri or tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise SweepError(f"{reference} cannot be loaded: {reason}")
    return Verification(reference=reference, version=int(version.version), **_read(done.stdout))


def _read(answer: str) -> dict[str, Any]:
    fields = json.loads(answer)
    return {**fields, "notes": tuple(fields["notes"])}


def main() -> None:
    """In the fresh process: load, predict, compare; JSON on stdout and everything else on stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    import mlflow

    found = compare(mlflow.pyfunc.load_model(sys.argv[1]))
    with os.fdopen(answer, "w") as stream:
        json.dump(found, stream)


def compare(model: PyFuncModel) -> dict[str, Any]:
    """Predict every recorded test row again.

    Returns:
        The fields of :class:`Verification` that do not say which model it is.
    """
    from pyarrow import parquet

    from orchestrator.tracking.bundle import EVALUATION

    adapter: Any = model.unwrap_python_model()
    predictor: Predictor = adapter.predictor
    recorded = parquet.read_table(Path(adapter.folder) / EVALUATION)
    then, now, score = _predictions(model, predictor, recorded)
    return {
        "rows": recorded.num_rows,
        "largest_difference": float(np.abs(then - now).max()) if then.shape == now.shape else float("inf"),
        "score_recorded": predictor.bundle.score,
        "score_now": score,
        "notes": differences(predictor.bundle),
    }


def differences(bundle: Bundle) -> list[str]:
    """What is different here, and may be why the numbers are."""
    import torch

    from orchestrator.backbone.frozen import compute_dtype
    from orchestrator.tracking.bundle import Environment

    then, here = bundle.environment, Environment.here()
    pairs = {"torch": (here.torch, then.torch), "processor": (here.cpu, then.cpu)}
    notes = [f"{name}: {now} here, {before} when recorded" for name, (now, before) in pairs.items() if now != before]
    if then.device.startswith("cuda") and not torch.cuda.is_available():
        notes.append(f"device: cpu here, {then.device} when recorded")
    own = str(compute_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    if then.device == "cpu" and own == "float32" and bundle.backbone.compute_dtype != own:
        notes.append(f"{bundle.backbone.compute_dtype} as recorded, in which this processor is slow")
    if (cores := os.cpu_count() or 1) < then.threads:
        notes.append(f"threads: {then.threads} as recorded, on {cores} cores")
    return notes


def _predictions(
    model: PyFuncModel, predictor: Predictor, recorded: pa.Table
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """What was predicted then and now, one line per row, and the score now."""
    import pandas as pd
    import pyarrow as pa

    bundle = predictor.bundle
    if bundle.type == "causal-lm":
        found = predictor.evaluate(recorded).predictions
        score = predictor.type.score(bundle.metric, found)
        return recorded["nll"].to_numpy(), found["nll"].to_numpy(), score
    frame: Any = model.predict(pd.DataFrame({bundle.column: recorded["text"].to_pylist()}))
    now: NDArray[np.float64] = frame[[f"probability_{label}" for label in bundle.labels]].to_numpy(np.float64)
    then = np.array(recorded["probabilities"].to_pylist(), np.float64)
    column = pa.FixedSizeListArray.from_arrays(pa.array(now.ravel()), len(bundle.labels))
    predictions = recorded.select(["row", "label"]).append_column("probabilities", column)
    return then, now, predictor.type.score(bundle.metric, predictions)
