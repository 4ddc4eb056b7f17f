"""Requirements of a configuration that are known before training: parameters, bytes on disk, and minimum memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.base.spec import Attached, MethodSpec
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.planning.capability.attach import attach, attach_with_data

MAX_WRITTEN_BYTES = 64 * 2**20
"""Largest adapter that is saved to a temporary folder to measure its size, in bytes."""
_BYTES_PER_WEIGHT = {"nf4": 0.5, "fp4": 0.5, "int8": 1.0, "none": 2.0}
_UNQUANTIZED_BYTES = 2


def measure_requirements(
    spec: MethodSpec[Any],
    params: Mapping[str, Any],
    backbone: SharedBackbone,
    *,
    write_limit: float = MAX_WRITTEN_BYTES,
) -> Mapping[str, float]:
    """Return what a configuration requires on an architecture.

    Args:
        spec: the method.
        params: the configuration.
        backbone: the architecture on the meta device.
        write_limit: size in bytes up to which trained tensors are saved to measure the adapter. The size of a larger
            adapter is that of its trained tensors, without the few kilobytes of its other files.

    Returns:
        ``trainable``: number of trained parameters. ``adapter``: bytes of the folder that a lane would save.
        ``memory``: minimum bytes of training, which are the backbone, the trained parameters, their gradients and the
        optimizer's state, without activations. Three types of `peft` (oft, osf, psoft) save less from a real backbone
        than from one on the meta device.

    Raises:
        MethodError: if the method cannot be attached, or needs the backbone's weights for that.
    """
    attached = attach(spec, params, backbone)
    trained = list(attached.trainable().values())
    size = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    # parameter and gradient; and AdamW's two moments, unless they are paged out of the GPU's memory
    copies = 2 if attached.optimizer == "paged_adamw_8bit" else 4
    is_saved = size <= min(write_limit, MAX_WRITTEN_BYTES)
    return {
        "trainable": float(sum(parameter.numel() for parameter in trained)),
        "adapter": _saved_bytes(attach_with_data(spec, params, backbone), backbone) if is_saved else float(size),
        "memory": frozen_bytes(backbone) + copies * size,
    }


def frozen_bytes(backbone: SharedBackbone) -> float:
    """Return the minimum bytes of a backbone: quantized layers without their scales, and everything else in 16 bits."""
    layers = [module for module in backbone.model.modules() if isinstance(module, FrozenLinear)]
    packed = sum(layer.in_features * layer.out_features for layer in layers)
    return (
        packed * _BYTES_PER_WEIGHT[backbone.context.quantization]
        + (backbone.parameters() - packed) * _UNQUANTIZED_BYTES
    )


def _saved_bytes(attached: Attached, backbone: SharedBackbone) -> float:
    """Save an adapter to a temporary folder, and return the bytes of its files."""
    shared = {id(tensor) for tensor in backbone.shared_tensors()}
    for module in attached.module.modules():
        _materialize(module, shared)
    with tempfile.TemporaryDirectory() as folder:
        attached.save(Path(folder))
        return float(sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()))


def _materialize(module: nn.Module, shared: set[int]) -> None:
    """Replace a module's own tensors on the meta device by zeros on the CPU, which can be saved."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.is_meta and id(parameter) not in shared:
            zeros = torch.zeros(parameter.shape, dtype=parameter.dtype)
            module.register_parameter(name, nn.Parameter(zeros, requires_grad=parameter.requires_grad))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.is_meta and id(buffer) not in shared:
            module.register_buffer(name, torch.zeros(buffer.shape, dtype=buffer.dtype))
