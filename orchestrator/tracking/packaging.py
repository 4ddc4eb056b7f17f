"""Package a bundle as an MLflow model, with code and requirements, without loading the adapter."""

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
from orchestrator.tasks.inputs import ColumnKind
from orchestrator.tasks.user_metric import module_of
from orchestrator.tracking.bundle import Bundle

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import DataType
    from mlflow.types.schema import AnyType, Array

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

    This project's packages are copied into it, so that it loads where only its requirements are installed.

    Args:
        folder: The bundle's folder.
        target: Folder to create.
        run_id: Id of the MLflow run that the model belongs to.
        model_id: Id of the logged model that it becomes.
    """
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    bundle = Bundle.read(folder)
    with copied_code(bundle) as packages:
        pyfunc.save_model(
            target,
            python_model=str(CODE),
            artifacts={"bundle": str(folder)},
            code_paths=packages,
            signature=signature(bundle),
            input_example=pd.DataFrame([bundle.input_schema.example]),
            pip_requirements=list(requirements(bundle)),
            metadata={"task": bundle.task, "method": bundle.method, "backbone": _reference(bundle.backbone.model)},
            mlflow_model=Model(run_id=run_id),
        )
    # If the id were set before saving, MLflow would look it up on the default tracking server of this process.
    saved = Model.load(target)
    saved.model_id = model_id
    _without_local_paths(saved.flavors["python_function"])
    saved.save(target / "MLmodel")


def _reference(model: str) -> str:
    """Return the name of a backbone; of a folder on this machine the last part."""
    return Path(model).name if Path(model).is_absolute() else model


def _without_local_paths(flavor: dict[str, Any]) -> None:
    """Name the bundle and the code by their places in the model; MLflow records where they were on this machine."""
    flavor["artifacts"]["bundle"]["uri"] = flavor["artifacts"]["bundle"]["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name


@contextmanager
def copied_code(bundle: Bundle) -> Iterator[list[str]]:
    """Provide the folders of the packages that a bundle's method needs, with one for its plugins.

    Plugins are written into a folder of the model that holds nothing else: no file of an adapter's folder is ever run.
    """
    sources = plugin_sources(bundle)
    packages = (orchestrator, methods, search_spaces) if sources else (orchestrator, methods)
    folders = [str(Path(package.__file__ or "").parent) for package in packages]
    if not sources:
        yield folders
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / PLUGINS
        folder.mkdir()
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source, encoding="utf-8")
        yield [*folders, str(folder)]


def plugin_sources(bundle: Bundle) -> dict[str, str]:
    """Return name and source text of the plugins that a bundle's method and metrics need."""
    metrics = filter(None, map(module_of, (bundle.metric, *bundle.metrics)))
    sources = {name: source_of(name) for name in (*methods_of(bundle.method), *metrics)}
    return {name: source for name, source in sources.items() if source is not None}


def signature(bundle: Bundle) -> ModelSignature:
    """Return MLflow's signature: the answer columns of the task's type.

    There is no input schema: with one, MLflow takes data frames alone and no list of texts, and refuses null or a
    number with its whole input and schema, where the model itself says in one line which row is wrong and why. The
    input example and the card show the columns.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    answers = bundle.task_type.answer_columns(bundle.labels)
    return ModelSignature(outputs=Schema([ColSpec(_mlflow_type(kind), name) for name, kind in answers.items()]))


def _mlflow_type(kind: ColumnKind) -> DataType | Array | AnyType:
    from mlflow.types import DataType
    from mlflow.types.schema import AnyType, Array

    if kind == "json":
        return AnyType()
    return Array(DataType[kind.removesuffix("s")]) if kind in ("strings", "doubles") else DataType[kind]


def requirements(bundle: Bundle) -> Iterator[str]:
    """Yield the packages that the model needs, pinned to the versions that are installed here."""
    names = list(REQUIRED)
    model = bundle.backbone.model
    if plugin_sources(bundle):
        names.append("optuna")  # a plugin's file defines its search space too
    if model.endswith(".gguf"):
        names.append("gguf")
    if model.startswith(PACKAGE):
        package = model.removeprefix(PACKAGE).partition("/")[0]
        names += metadata.packages_distributions().get(package, [])[:1]
    for name in names:
        # The part after + names a build for one kind of hardware, which pip cannot install on other machines.
        yield f"{name}=={metadata.version(name).partition('+')[0]}"
