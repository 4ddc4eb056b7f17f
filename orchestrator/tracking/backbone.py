"""Find the quantized backbone of an adapter: in its bundle, in the cache or in a storage; or quantize it again."""

from __future__ import annotations

from pathlib import Path

import torch

from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import backbone_digest, backbone_path, cache_folder, publish
from orchestrator.common.errors import InputError, SweepError
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig, GpuSettings
from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.bundle import BundleBackbone


def backbone_file(
    record: BundleBackbone, task: str, *, carried: Path | None = None, storage: Storage | None = None
) -> Path:
    """Return the file of a quantized backbone; the checkpoint is quantized again if there is no such file.

    Args:
        record: The backbone as the bundle records it.
        task: Name of the task's type.
        carried: Path of the backbone in the bundle; most bundles have no such file.
        storage: Storage that may hold the file.

    Raises:
        SweepError: If the checkpoint cannot be loaded here, or has changed since the adapter was trained.
    """
    path = backbone_path(record.digest)
    for file in (carried, cache_folder() / path):
        if file and file.exists():
            return file
    cache = Storage(str(cache_folder()))
    if storage and storage.exists(path):
        cache.local(path).parent.mkdir(parents=True, exist_ok=True)
        storage.download(path, cache.local(path))
    else:
        _quantize_again(record, task, cache)
    return cache.local(path)


def attachable(
    record: BundleBackbone,
    task: str,
    labels: int,
    file: Path,
    dtype: torch.dtype,
    device: str = "cpu",
    gpu: GpuSettings | None = None,
) -> SharedBackbone:
    """Load a backbone's file after checking that it is the one that the adapter was trained on.

    Raises:
        SweepError: If its checksum differs.
    """
    # The checksum covers the dtype that packed weights are dequantized to, so that it is always taken for float32.
    plain = load(file, task, name=record.model, dtype=torch.float32, labels=labels, derived=False)
    if plain.checksum() != record.checksum:
        raise SweepError(f"{file} is not the backbone that the adapter was trained on: its checksum differs")
    if (dtype, device) == (torch.float32, "cpu"):
        return plain
    return load(file, task, name=record.model, dtype=dtype, labels=labels, device=device, derived=False, gpu=gpu)


def _quantize_again(record: BundleBackbone, task: str, cache: Storage) -> None:
    auto_class = TASK_TYPES[task].auto_class
    try:
        source = resolve(BackboneConfig(model=record.model, revision=record.revision), Path.cwd())
    except InputError as error:
        raise SweepError(f"the backbone cannot be loaded here: {error.lines()[0]}") from error
    if backbone_digest(source, auto_class, record.quantization, record.double_quantization) != record.digest:
        raise SweepError(f"the checkpoint {record.model} is not the one that the adapter was trained on")
    publish(source, auto_class, record.quantization, record.double_quantization, cache)
