"""The tensors of a backbone file on a device, which the backbones of several tasks may share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from orchestrator.backbone.checkpoint import Header, frozen_weights
from orchestrator.backbone.tensor_file import TensorFile
from orchestrator.backbone.weights import SCALES, FrozenWeight

RELEASE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class StoredBackbone:
    """A backbone file's tensors.

    Args:
        header: description of the backbone.
        frozen: packed weights of the frozen layers, by layer.
        plain: all other tensors, by parameter.
        dtype: dtype of frozen products.
        device: device of the tensors.
        release: function that gives back pages of the file that were read and are not needed at the moment.
    """

    header: Header
    frozen: dict[str, FrozenWeight]
    plain: dict[str, Tensor]
    dtype: torch.dtype
    device: torch.device
    release: Callable[[], None]


def read_stored(
    file: Path, dtype: torch.dtype, device: torch.device | str = "cpu", derived: bool = True
) -> StoredBackbone:
    """Map a backbone file; on a CPU no tensor is copied.

    Where frozen products are computed in bfloat16, other float16 tensors are converted to it: between layers,
    activations have their dtype, and small gradients would vanish in float16, or large values overflow.

    Args:
        file: file that :func:`orchestrator.backbone.checkpoint.write` made.
        dtype: dtype of frozen products.
        device: device to put the tensors on; a GPU other than the first needs its index, as ``cuda:1`` has.
        derived: whether to use derived tensors that are stored to save time; without them, every tensor in use is
            covered by the checksum.
    """
    header, mapped, device = Header.read(file), TensorFile(file), torch.device(device)
    derived = derived and device.type == "cpu"  # what they save is time of a CPU
    tensors = {name: t for name, t in mapped.tensors().items() if derived or not name.endswith(f":{SCALES}")}
    if device.type != "cpu":
        tensors = _copied(tensors, device, mapped)
    plain = {name: tensor for name, tensor in tensors.items() if ".weight:" not in name}
    if dtype == torch.bfloat16:
        plain = {name: t.to(dtype) if t.dtype == torch.float16 else t for name, t in plain.items()}
    return StoredBackbone(header, frozen_weights(tensors, header.frozen, dtype), plain, dtype, device, mapped.release)


def _copied(tensors: dict[str, Tensor], device: torch.device, mapped: TensorFile) -> dict[str, Tensor]:
    """Copy tensors to a device, straight from the map.

    safetensors would copy each to pinned memory first, which torch keeps for later: twice the largest tensor, per lane.
    """
    copies, read = {}, 0
    for name, tensor in tensors.items():
        copies[name] = tensor.to(device)
        read += tensor.nbytes
        if read > RELEASE_BYTES:
            mapped.release()
            read = 0
    mapped.release()
    return copies
