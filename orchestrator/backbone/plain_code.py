"""The code that loads the unquantized backbone of an adapter with transformers alone, wherever its checkpoint is."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from orchestrator.common.errors import InputError
from orchestrator.common.uris import PACKAGE, locate_package


def plain_imports(model: str, auto_class: str) -> tuple[str, ...]:
    """Return the imports of :func:`plain_model`, the standard library's first."""
    resources = ("from importlib.resources import files", "") if model.startswith(PACKAGE) else ()
    return (*resources, f"from transformers import {auto_class}")


def plain_model(model: str, auto_class: str, *, revision: str | None = None, labels: int = 0) -> str:
    """Return the Python expression that loads a backbone without quantization.

    transformers knows neither ``package:NAME/SUBPATH`` nor the path of a GGUF file: the one is looked up among the
    installed packages, of the other the folder and the name are given.

    Args:
        model: hub id, folder, GGUF file, or ``package:NAME/SUBPATH``.
        auto_class: transformers class that loads it.
        revision: commit on the hub.
        labels: size of the classification head; 0 for none.
    """
    name, _, subpath = model.removeprefix(PACKAGE).partition("/")
    path = PurePosixPath(subpath if model.startswith(PACKAGE) else model)
    gguf = path.name if path.suffix == ".gguf" else ""
    folder = path.parent if gguf else path
    if model.startswith(PACKAGE):
        place = f"files({json.dumps(name)})" + (f" / {json.dumps(str(folder))}" if str(folder) != "." else "")
    else:
        place = json.dumps(str(folder) if gguf else model, ensure_ascii=False)
    arguments = [
        place,
        *([f"revision={json.dumps(revision)}"] if revision else []),
        *([f"gguf_file={json.dumps(gguf)}"] if gguf else []),
        *([f"num_labels={labels}"] if labels else []),
    ]
    return f"{auto_class}.from_pretrained({', '.join(arguments)})"


def loadable_name(model: str) -> str | None:
    """Return what loaders such as ``peft.AutoPeftModel`` take for a backbone's name.

    Returns:
        A hub id or a folder: that of an installed package, or of a GGUF file. ``None`` for a package that is not
        installed here.
    """
    try:
        place = locate_package(model) if model.startswith(PACKAGE) else Path(model)
    except InputError:
        return None
    if place.suffix == ".gguf":
        return str(place.parent)
    return str(place) if model.startswith(PACKAGE) else model
