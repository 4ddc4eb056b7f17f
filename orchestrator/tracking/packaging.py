"""A bundle as an MLflow model: code and requirements around it, written without loading anything."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods
import orchestrator
from orchestrator.locations import PACKAGE
from orchestrator.tracking.bundle import Bundle

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CODE = Path(__file__).with_name("pyfunc_model.py")
REQUIRED = (
    "mlflow",
    "accelerate",
    "bitsandbytes",
    "filelock",
    "huggingface-hub",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scikit-learn",
    "tokenizers",
    "torch",
    "transformers",
)


def save_pyfunc(folder: Path, target: Path, *, run_id: str, model_id: str) -> None:
    """Write a bundle as an MLflow pyfunc model.

    Our own packages travel with it, as they are now, so that it loads where only its requirements are installed.

    Args:
        folder: the bundle's.
        target: folder to create.
        run_id: the run that it belongs to.
        model_id: the logged model that it becomes.
    """
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    bundle = Bundle.read(folder)
    pyfunc.save_model(
        target,
        python_model=str(CODE),
        artifacts={"bundle": str(folder)},
        code_paths=[str(Path(package.__file__ or "").parent) for package in (orchestrator, methods)],
        signature=signature(bundle),
        input_example=pd.DataFrame({bundle.column: [_example(bundle)]}),
        pip_requirements=list(requirements(bundle)),
        metadata={"task": bundle.task, "method": bundle.method, "backbone": bundle.backbone.model},
        mlflow_model=Model(run_id=run_id),
    )
    # Saving a model that has its id already would look the id up on the process's own tracking server.
    saved = Model.load(target)
    saved.model_id = model_id
    saved.save(target / "MLmodel")


def signature(bundle: Bundle) -> ModelSignature:
    """One text column in; a label with the probability of each, or a completion, out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "completion")]
    if bundle.type == "classification":
        outputs = [ColSpec("string", "label"), *(ColSpec("double", f"probability_{name}") for name in bundle.labels)]
    return ModelSignature(inputs=Schema([ColSpec("string", bundle.column)]), outputs=Schema(outputs))


def requirements(bundle: Bundle) -> Iterator[str]:
    """What must be installed to use it, pinned to what is installed here."""
    names = list(REQUIRED)
    model = bundle.backbone.model
    if model.endswith(".gguf"):
        names.append("gguf")
    if model.startswith(PACKAGE):
        package = model.removeprefix(PACKAGE).partition("/")[0]
        names += metadata.packages_distributions().get(package, [])[:1]
    for name in names:
        # The part after + names a build for one kind of hardware, which another machine cannot ask for.
        yield f"{name}=={metadata.version(name).partition('+')[0]}"


def _example(bundle: Bundle) -> Any:
    return "Thank you for the quick help!" if bundle.type == "classification" else "Once upon a time"
