"""The backbone that an adapter belongs to, found again: carried along, cached, in a storage, or quantized anew."""

from __future__ import annotations

from pathlib import Path

import torch

from methods.base.spec import TaskType
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import backbone_digest, backbone_path, cache_folder, publish
from orchestrator.common.errors import InputError, SweepError
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig
from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.bundle import BundleBackbone


def backbone_file(
    wanted: BundleBackbone, task: TaskType, *, carried: Path | None = None, storage: Storage | None = None
) -> Path:
    """The quantized backbone: carried along, cached on this node, in the storage, or made again.

    Args:
        wanted: which.
        task: the task's type.
        carried: a file that may be it.
        storage: where it may be found, before it is made again.

    Raises:
        SweepError: if the checkpoint cannot be had here, or has changed since.
    """
    path = backbone_path(wanted.digest)
    for file in (carried, cache_folder() / path):
        if file and file.exists():
            return file
    cache = Storage(str(cache_folder()))
    if storage and storage.exists(path):
        cache.local(path).parent.mkdir(parents=True, exist_ok=True)
        storage.download(path, cache.local(path))
    else:
        _quantize_again(wanted, task, cache)
    return cache.local(path)


def attachable(
    wanted: BundleBackbone, task: TaskType, labels: int, file: Path, dtype: torch.dtype, device: str = "cpu"
) -> SharedBackbone:
    """Map a backbone's file, once it is proven to be the one that the adapter was trained on.

    Raises:
        SweepError: if it is another.
    """
    # A packed weight's own record names the dtype it is unpacked to, so the checksum has one dtype for all.
    plain = load(file, task, name=wanted.model, dtype=torch.float32, labels=labels, derived=False)
    if plain.checksum() != wanted.checksum:
        raise SweepError(f"{file} is not the backbone that the adapter was trained on: its checksum differs")
    if (dtype, device) == (torch.float32, "cpu"):
        return plain
    return load(file, task, name=wanted.model, dtype=dtype, labels=labels, device=device, derived=False)


def _quantize_again(wanted: BundleBackbone, task: TaskType, cache: Storage) -> None:
    auto_class = TASK_TYPES[task].auto_class
    try:
        source = resolve(BackboneConfig(model=wanted.model, revision=wanted.revision), Path.cwd())
    except InputError as error:
        raise SweepError(f"the backbone cannot be had here: {error.lines()[0]}") from error
    if backbone_digest(source, auto_class, wanted.quantization, wanted.double_quantization) != wanted.digest:
        raise SweepError(f"the checkpoint {wanted.model} is not the one that the adapter was trained on")
    publish(source, auto_class, wanted.quantization, wanted.double_quantization, cache)
