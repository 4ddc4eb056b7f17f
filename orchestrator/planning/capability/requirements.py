"""What a configuration needs, known without training it: parameters, bytes on disk, and the least of memory."""

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
from orchestrator.planning.capability.dry_run import attach, attach_with_numbers

MAX_WRITTEN_BYTES = 64 * 2**20
"""So many bytes are written to be measured, at most."""
_BYTES = {"nf4": 0.5, "fp4": 0.5, "int8": 1.0, "none": 2.0}
_STREAM_BYTES = 2


def measure_requirements(
    spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone, *, written: float = MAX_WRITTEN_BYTES
) -> Mapping[str, float]:
    """What a configuration needs on an architecture.

    Args:
        spec: of the method.
        params: the configuration.
        backbone: the architecture's skeleton.
        written: an adapter is saved to be measured if its trained tensors are no more bytes than this; of a larger one
            the few kilobytes beside them are not counted.

    Returns:
        ``trainable``, a count; ``adapter``, bytes of the folder that a lane would save; ``memory``, bytes that training
        takes at least: the backbone, and what trains with gradients and the optimizer's state. Activations come on
        top. Three types of `peft` (oft, osf, psoft) save less from a real backbone than from a skeleton.

    Raises:
        MethodError: if the method does not fit, or computes with weights that a skeleton lacks.
    """
    attached = attach(spec, params, backbone)
    trained = list(attached.trainable().values())
    size = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    copies = 2 if attached.optimizer == "paged_adamw_8bit" else 4  # with its gradient, and AdamW's two moments
    is_written = size <= min(written, MAX_WRITTEN_BYTES)
    return {
        "trainable": float(sum(parameter.numel() for parameter in trained)),
        "adapter": _saved(attach_with_numbers(spec, params, backbone), backbone) if is_written else float(size),
        "memory": frozen_bytes(backbone) + copies * size,
    }


def frozen_bytes(backbone: SharedBackbone) -> float:
    """What the backbone takes at least: packed layers without their scales, and the rest in 16 bits."""
    layers = [module for module in backbone.model.modules() if isinstance(module, FrozenLinear)]
    packed = sum(layer.in_features * layer.out_features for layer in layers)
    return packed * _BYTES[backbone.context.quantization] + (backbone.parameters() - packed) * _STREAM_BYTES


def _saved(attached: Attached, backbone: SharedBackbone) -> float:
    """Bytes of the adapter's folder, by saving it."""
    shared = {id(tensor) for tensor in backbone.shared_tensors()}
    for module in attached.module.modules():
        _fill(module, shared)
    with tempfile.TemporaryDirectory() as folder:
        attached.save(Path(folder))
        return float(sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()))


def _fill(module: nn.Module, shared: set[int]) -> None:
    """Give numbers to the tensors of a module that are its own and have none yet."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.is_meta and id(parameter) not in shared:
            filled = torch.zeros(parameter.shape, dtype=parameter.dtype)
            module.register_parameter(name, nn.Parameter(filled, requires_grad=parameter.requires_grad))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.is_meta and id(buffer) not in shared:
            module.register_buffer(name, torch.zeros(buffer.shape, dtype=buffer.dtype))
