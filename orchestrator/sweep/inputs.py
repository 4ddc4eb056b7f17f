"""Copies of a sweep's inputs in the storage, so that it can be resumed where its files are not.

Rows and plugins are copied as they are. Of a checkpoint in a local folder only the small files are, with the digest of
the whole: the quantized backbone is in the storage already, and a resumed sweep reads no other weights. What comes from
a URI, a hub or an installed package is not copied.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.backbone.source import RECORDED_DIGEST, is_weight_file
from orchestrator.common.storage import Storage
from orchestrator.common.uris import PACKAGE, is_uri
from orchestrator.journal.remote import INPUTS
from orchestrator.tasks.user_metric import is_reference

if TYPE_CHECKING:
    from orchestrator.planning.plan import SweepPlan  # imports torch

INDEX = "index.json"
"""File with the copy of each input, by the absolute path that the configuration in the journal has."""


def upload_inputs(plan: SweepPlan, storage: Storage) -> None:
    """Copy a plan's local inputs into the storage, unless an earlier driver has.

    Args:
        plan: plan of the sweep.
        storage: storage of the sweep's folder.
    """
    if storage.exists(f"{INPUTS}/{INDEX}"):
        return
    copies: dict[str, str] = {}
    for path, copy in _files(plan):
        storage.upload(path, f"{INPUTS}/{copy}")
        copies[str(path)] = copy
    if (checkpoint := _checkpoint(plan)) is not None:
        with tempfile.TemporaryDirectory() as folder:
            _copy_small_files(checkpoint, Path(folder) / "backbone", plan.source.digest)
            storage.upload(Path(folder) / "backbone", f"{INPUTS}/backbone")
        copies[str(checkpoint)] = "backbone"
    storage.write(f"{INPUTS}/{INDEX}", json.dumps(copies, indent=2).encode())  # last: it says that all are there


def with_copied_inputs(values: Any, folder: Path) -> Any:
    """Return a recorded configuration with the paths of copied inputs, where the sweep's folder holds copies.

    Args:
        values: configuration as the journal has it.
        folder: the sweep's folder on this machine.
    """
    index = folder / INPUTS / INDEX
    if not index.is_file():
        return values
    copies = {path: str(folder / INPUTS / copy) for path, copy in json.loads(index.read_text()).items()}
    return _replaced(values, copies)


def _replaced(value: Any, copies: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(inner, copies) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, copies) for inner in value]
    if not isinstance(value, str):
        return value
    file, _, function = value.rpartition(":")  # of a metric in a file
    return f"{copies[file]}:{function}" if file in copies else copies.get(value, value)


def _files(plan: SweepPlan) -> list[tuple[Path, str]]:
    """Return the local files of rows, plugins and a chat template, each with its path among the copies."""
    config, files = plan.config, list[tuple[Path, str]]()
    values = config.resolved()
    for name, task in config.tasks.items():
        for key in task.files():
            place: Any = values["tasks"][name]
            for part in key:
                place = place[part]
            if not (is_uri(place) or place.startswith(PACKAGE)):
                files.append((Path(place), f"{'/'.join(('tasks', name, *map(str, key)))}/{Path(place).name}"))
    if template := values["backbone"].get("chat_template"):
        files.append((Path(template), f"chat_template/{Path(template).name}"))
    files += [
        (Path(plugin), f"plugins/{number}/{Path(plugin).name}") for number, plugin in enumerate(values["plugins"])
    ]
    metrics = [
        Path(reference.rpartition(":")[0])
        for task in values["tasks"].values()
        for reference in ([task["metric"]] if isinstance(task["metric"], str) else task["metric"])
        if is_reference(reference)
    ]
    files += [(file, f"metrics/{number}/{file.name}") for number, file in enumerate(dict.fromkeys(metrics))]
    return list(dict(files).items())


def _checkpoint(plan: SweepPlan) -> Path | None:
    """Return the folder of a checkpoint that another machine cannot get by its name."""
    return plan.source.path if not plan.source.portable and plan.source.path.is_dir() else None


def _copy_small_files(checkpoint: Path, target: Path, digest: str) -> None:
    target.mkdir()
    for file in sorted(checkpoint.iterdir()):
        if file.is_file() and not is_weight_file(file):
            (target / file.name).write_bytes(file.read_bytes())
    (target / RECORDED_DIGEST).write_text(digest)
