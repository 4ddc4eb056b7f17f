"""Writes what is exported: whole or not at all, and never over anything."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods.base.adapter_folder import read_method
from orchestrator.common.errors import InputError, Problem
from orchestrator.export.merged import Merged, write_merged
from orchestrator.export.readme import adapter_readme, merged_readme
from orchestrator.export.trained import Trained, find

README = "README.md"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        reference: what was asked for.
        folder: where it is.
        method: that trained it.
        peft: whether ``peft.PeftModel.from_pretrained`` loads it.
        backbone: that it belongs to, or was merged into.
        task: the task's type.
        labels: in the order of the logits.
        bytes: of all files.
        merged: what the merging gave; ``None`` for an adapter.
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
        """Plain JSON values."""
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
    """Write a trained adapter, or the plain checkpoint that it makes of its backbone, into a new folder.

    Args:
        reference: ``SWEEP/TASK/METHOD/NUMBER``, ``NAME@ALIAS`` or ``NAME/VERSION``.
        merged: whether to fold it into the backbone's weights.
        out: the folder; named after what is exported if left out.
        dtype: of merged weights; the backbone checkpoint's own if left out.
        storage: where sweeps are.
        tracking_uri: where models are.

    Raises:
        InputError: if there is no such trial or model, it cannot be merged, or the folder holds something.
        SweepError: if it, or its backbone, cannot be had here.
    """
    if out is not None:
        _require_free(out)
    with tempfile.TemporaryDirectory() as place:
        trained = find(reference, Path(place), storage=storage, tracking_uri=tracking_uri)
        folder = out or Path(f"{trained.name}-merged" if merged else trained.name)
        _require_free(folder)
        made = _write(trained, folder, merged, dtype)
    return Exported(
        reference=reference,
        folder=folder,
        method=trained.method,
        peft=not merged and trained.peft,
        backbone=trained.backbone.model,
        task=trained.type,
        labels=trained.labels,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        merged=made,
    )


def _write(trained: Trained, folder: Path, merged: bool, dtype: str | None) -> Merged | None:
    """Aside first, then under its name."""
    with _aside(folder) as place:
        aside = Path(place) / folder.name
        made = write_merged(trained, aside, dtype) if merged else None
        if not merged:
            read_method(trained.adapter)
            shutil.copytree(trained.adapter, aside)
            for plugin in trained.plugins:
                shutil.copy(plugin, aside)
        shutil.copytree(trained.tokenizer, aside, dirs_exist_ok=True)
        text = merged_readme(trained, str(folder), made) if made else adapter_readme(trained, str(folder))
        (aside / README).write_text(text, encoding="utf-8")
        os.replace(aside, folder)
    return made


def _require_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("--out", [Problem(str(folder), "is there already, and not an empty folder; name another")])


def _aside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".exporting-")
    except OSError as error:
        raise InputError("--out", [Problem(str(folder), f"cannot be written ({error.strerror})")]) from error
