"""Write an exported folder, which appears only once it is complete and never replaces files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods.base.adapter_folder import read_method
from orchestrator.backbone.plain_code import loadable_name
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.file_modes import give_default_modes
from orchestrator.export.merged import Merged, write_merged
from orchestrator.export.readme import adapter_readme, merged_readme
from orchestrator.export.trained import Trained, find

README = "README.md"
PEFT_CONFIG = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported folder.

    Args:
        reference: reference of the trial or registered model.
        folder: path of the folder.
        method: method that trained the adapter.
        peft: whether ``peft.PeftModel.from_pretrained`` loads it.
        backbone: backbone that it belongs to, or was merged into.
        task: type of the task.
        labels: labels in the order of the logits.
        bytes: size of all files.
        merged: result of the merge; ``None`` for an adapter.
    """

    reference: str
    folder: Path
    method: str
    peft: bool
    backbone: str
    task: str
    labels: tuple[str, ...]
    bytes: int
    merged: Merged | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "folder": str(self.folder), "labels": list(self.labels)}


def export(
    reference: str,
    *,
    merged: bool,
    out: Path | None,
    dtype: str | None,
    storage: str,
    tracking_uri: str,
) -> Exported:
    """Write a trained adapter, or the plain checkpoint of its backbone with the adapter merged, into a new folder.

    Args:
        reference: ``SWEEP/TASK/METHOD/NUMBER``, ``NAME@ALIAS`` or ``NAME/VERSION``.
        merged: whether to merge it into the backbone's weights.
        out: path of the folder; named after the reference if left out.
        dtype: data type of merged weights; that of the backbone's checkpoint if left out.
        storage: storage of the sweeps.
        tracking_uri: MLflow's tracking URI.

    Raises:
        InputError: if there is no such trial or model, it cannot be merged, or the folder is not empty.
        SweepError: if it, or its backbone, cannot be downloaded.
    """
    if out is not None:
        _require_free(out)
    with tempfile.TemporaryDirectory() as downloads:
        trained = find(reference, Path(downloads), storage=storage, tracking_uri=tracking_uri)
        folder = out or Path(f"{trained.name}-merged" if merged else trained.name)
        _require_free(folder)
        merge = _write(trained, folder, merged, dtype)
    return Exported(
        reference=reference,
        folder=folder,
        method=trained.method,
        peft=not merged and trained.peft,
        backbone=trained.backbone.model,
        task=trained.type,
        labels=trained.labels,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        merged=merge,
    )


def _write(trained: Trained, folder: Path, merged: bool, dtype: str | None) -> Merged | None:
    """Write into a temporary folder, and give it its name at the end."""
    with _temporary_sibling(folder) as parent:
        target = Path(parent) / folder.name
        merge = write_merged(trained, target, dtype) if merged else None
        if not merged:
            read_method(trained.adapter)
            shutil.copytree(trained.adapter, target)
            _name_backbone(target, trained)
            for plugin in trained.plugins:
                shutil.copy(plugin, target)
        shutil.copytree(trained.tokenizer, target, dirs_exist_ok=True)
        text = merged_readme(trained, str(folder), merge) if merge else adapter_readme(trained, str(folder))
        (target / README).write_text(text, encoding="utf-8")
        give_default_modes(target)
        os.replace(target, folder)
    return merge


def _name_backbone(folder: Path, trained: Trained) -> None:
    """Name the backbone in peft's files as its loaders know it, in place of what the configuration calls it."""
    for file in folder.rglob(PEFT_CONFIG):
        config = json.loads(file.read_text(encoding="utf-8"))
        config |= {
            "base_model_name_or_path": loadable_name(trained.backbone.model),
            "revision": trained.backbone.revision,
        }
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _require_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("--out", [Problem(str(folder), "exists and is not an empty folder; name another one")])


def _temporary_sibling(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".exporting-")
    except OSError as error:
        raise InputError("--out", [Problem(str(folder), f"cannot be written ({error.strerror})")]) from error
