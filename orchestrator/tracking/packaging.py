"""A bundle as an MLflow model: code and requirements around it, written without loading anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods
import orchestrator
import search_spaces
from methods.families.compose_names import methods_of
from methods.plugins.loader import PACKAGE as PLUGINS
from methods.plugins.loader import source_of
from orchestrator.common.uris import PACKAGE
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
    with code_of(bundle) as packages:
        pyfunc.save_model(
            target,
            python_model=str(CODE),
            artifacts={"bundle": str(folder)},
            code_paths=packages,
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


@contextmanager
def code_of(bundle: Bundle) -> Iterator[list[str]]:
    """The folders of the packages that a bundle's method needs, a plugin's own among them.

    A plugin travels as code, in a folder of the model that holds nothing else: nothing in an adapter's folder is
    ever run.
    """
    sources = plugins_of(bundle)
    packages = (orchestrator, methods, search_spaces) if sources else (orchestrator, methods)
    folders = [str(Path(package.__file__ or "").parent) for package in packages]
    if not sources:
        yield folders
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / PLUGINS
        folder.mkdir()
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source, encoding="utf-8")
        yield [*folders, str(folder)]


def plugins_of(bundle: Bundle) -> dict[str, str]:
    """Name and text of the plugins that a bundle's method needs."""
    found = {name: source_of(name) for name in methods_of(bundle.method)}
    return {name: source for name, source in found.items() if source is not None}


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
    if plugins_of(bundle):
        names.append("optuna")  # a plugin's search space is in the same file
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
