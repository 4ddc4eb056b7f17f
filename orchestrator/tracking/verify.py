"""Check that a registered model still predicts what was recorded: loaded in a new process, compared row by row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.common.errors import SweepError
from orchestrator.tracking.evaluation import ROWS_TAG

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow.pyfunc import PyFuncModel

    from orchestrator.tracking.bundle import Bundle, Environment
    from orchestrator.tracking.predictor import Predictor

TOLERANCE, GPU_TOLERANCE = 1e-6, 1e-3
"""Largest difference of a number that was recorded on a processor, and on a GPU. There, products in bfloat16 or TF32
are rounded to 8 or 10 bits, and the order in which they are added depends on the GPU and on its libraries."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of a check in a new process.

    Args:
        reference: Reference that the user gave.
        version: Version of the registered model.
        rows: Number of test rows that were compared.
        largest_difference: Largest absolute difference from a recorded number: a probability, or a completion's
            negative log-likelihood in nats.
        score_recorded: Recorded test score in the task's metric.
        score_now: Test score of the new predictions.
        notes: Differences between this environment and that of the recording.
        tolerance: Largest difference that counts as agreement.
        other_device: This device and the recorded one, if they differ.
    """

    reference: str
    version: int
    rows: int
    largest_difference: float
    score_recorded: float
    score_now: float
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    other_device: str = ""

    @property
    def ok(self) -> bool:
        """Whether every row and the score are as recorded, within the tolerance."""
        difference = abs(self.score_now - self.score_recorded)
        # A score may be in the unit of a target, of any size.
        is_same_score = difference <= self.tolerance * max(1.0, abs(self.score_recorded))
        return self.largest_difference <= self.tolerance and is_same_score

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with ``ok`` among them."""
        return {**asdict(self), "notes": list(self.notes), "ok": self.ok}


FindRows = Callable[[str, str], "pa.Table"]
"""Returns the test split of a sweep's task, by their names."""


def verify(
    reference: str, tracking_uri: str, registry_uri: str | None = None, find_rows: FindRows | None = None
) -> Verification:
    """Load a registered model in a new process and compare its predictions with the recorded ones.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        tracking_uri: URI of the MLflow tracking server or database.
        registry_uri: URI of the model registry; the tracking URI if left out.
        find_rows: Finds the test rows of a model that does not carry them.

    Raises:
        InputError: If there is no such model, or its test rows are not found.
        SweepError: If it cannot be loaded on this machine.
    """
    from orchestrator.tracking.browse import find_version

    _, version = find_version(reference, tracking_uri, registry_uri)
    uri = f"models:/{version.name}/{version.version}"
    # With -m this module would be __main__, and MLflow's loader would import it a second time under its name.
    command = [sys.executable, "-c", "from orchestrator.tracking.verify import main; main()", uri]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_REGISTRY_URI": registry_uri or tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with tempfile.TemporaryDirectory() as folder:
        if find_rows and version.tags.get(ROWS_TAG) == "false":
            command.append(_written(find_rows(version.tags["sweep"], version.tags["task"]), Path(folder)))
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        reason = (process.stderr.strip() or "no message").splitlines()[-1]
        raise SweepError(f"{reference} cannot be loaded: {reason}")
    return Verification(reference=reference, version=int(version.version), **_fields(process.stdout))


def _written(rows: pa.Table, folder: Path) -> str:
    from pyarrow import parquet

    parquet.write_table(rows, folder / "rows.parquet")
    return str(folder / "rows.parquet")


def _fields(text: str) -> dict[str, Any]:
    fields = json.loads(text)
    return {**fields, "notes": tuple(fields["notes"])}


def main() -> None:
    """Load, predict and compare in the new process; print JSON on stdout and everything else on stderr."""
    stdout = os.dup(1)
    os.dup2(2, 1)  # what libraries print to stdout must not get between the JSON
    import mlflow

    fields = compare(mlflow.pyfunc.load_model(sys.argv[1]), *sys.argv[2:])
    with os.fdopen(stdout, "w") as stream:
        json.dump(fields, stream)


def compare(model: PyFuncModel, rows_file: str = "") -> dict[str, Any]:
    """Predict every recorded test row again.

    Args:
        model: The loaded model.
        rows_file: Parquet file with the test split, for a model that carries digests alone.

    Returns:
        The fields of :class:`Verification`, without ``reference`` and ``version``.

    Raises:
        SweepError: If the rows are missing or are others.
    """
    from pyarrow import parquet

    from orchestrator.tracking.bundle import EVALUATION
    from orchestrator.tracking.evaluation import DIGEST, rows_of

    adapter: Any = model.unwrap_python_model()
    predictor: Predictor = adapter.predictor
    recorded = parquet.read_table(Path(adapter.folder) / EVALUATION)
    rows = recorded
    if DIGEST in recorded.column_names:
        if not rows_file:
            raise SweepError("the model carries digests of its test rows alone, and no rows are given to compare")
        rows = rows_of(recorded, parquet.read_table(rows_file))
    predictions = _predict_again(model, predictor, rows)
    recorded_numbers, numbers = (predictor.type.reproducible(table) for table in (recorded, predictions))
    differences = np.abs(recorded_numbers - numbers) if recorded_numbers.shape == numbers.shape else np.array(np.inf)
    return {
        "rows": recorded.num_rows,
        "largest_difference": float(differences.max()),
        "score_recorded": predictor.bundle.checkpoint_score,
        "score_now": predictor.type.score(predictor.bundle.metric, predictions),
        "notes": environment_differences(predictor.bundle),
        "tolerance": GPU_TOLERANCE if predictor.bundle.environment.device.startswith("cuda") else TOLERANCE,
        "other_device": device_difference(predictor.bundle.environment, environment_of(predictor.bundle)),
    }


def environment_of(bundle: Bundle) -> Environment:
    """Return the environment in which a bundle is loaded here: on a GPU if it was recorded on one and there is one."""
    import torch

    from orchestrator.engine.gpu_identity import gpu_identity
    from orchestrator.tracking.bundle import Environment

    if not (bundle.environment.device.startswith("cuda") and torch.cuda.is_available()):
        return Environment.here()
    device = torch.device("cuda", torch.cuda.current_device())
    return Environment.here(None, "cuda", **gpu_identity(device))


def device_difference(recorded: Environment, current: Environment) -> str:
    """Return the device here and the recorded one, a clause; empty if they are the same or unknown."""
    here, before = (_device_name(environment) for environment in (current, recorded))
    same_kind = recorded.device.partition(":")[0] == current.device.partition(":")[0]
    if here == before or (same_kind and not recorded.gpu):
        return ""
    return f"{here} here, {before} when recorded"


def _device_name(environment: Environment) -> str:
    return environment.gpu or environment.device.partition(":")[0]


def environment_differences(bundle: Bundle) -> list[str]:
    """Return the differences between the recorded environment and this one that can change numbers."""
    import torch

    from orchestrator.backbone.frozen import compute_dtype

    recorded, current = bundle.environment, environment_of(bundle)
    pairs = {"torch": (current.torch, recorded.torch), "processor": (current.cpu, recorded.cpu)}
    if current.gpu and recorded.gpu:
        pairs |= {"CUDA": (current.cuda, recorded.cuda), "cuBLAS": (current.cublas, recorded.cublas)}
    notes = [f"{name}: {now} here, {before} when recorded" for name, (now, before) in pairs.items() if now != before]
    if difference := device_difference(recorded, current):
        notes.append(f"device: {difference}")
    fast_dtype = str(compute_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    if recorded.device == "cpu" and fast_dtype == "float32" and bundle.backbone.compute_dtype != fast_dtype:
        notes.append(f"computed in {bundle.backbone.compute_dtype} as recorded, in which this processor is slow")
    if (cores := os.cpu_count() or 1) < recorded.threads:
        notes.append(f"threads: {recorded.threads} as recorded, on {cores} cores")
    return notes


def _predict_again(model: PyFuncModel, predictor: Predictor, rows_to_predict: pa.Table) -> pa.Table:
    """Return new predictions of test rows."""
    import pandas as pd
    import pyarrow as pa

    from orchestrator.tasks.inputs import to_arrow

    def answer(rows: pa.Table) -> pa.Table:
        frame: Any = model.predict(pd.DataFrame(predictor.bundle.input_schema.to_rows(rows)))
        kinds = predictor.type.answer_columns(predictor.bundle.labels)
        return pa.table({name: to_arrow(frame[name].tolist(), kind) for name, kind in kinds.items()})

    return predictor.type.predict_again(rows_to_predict, answer, predictor.evaluate)
