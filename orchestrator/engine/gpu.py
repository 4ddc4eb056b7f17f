"""The GPUs that a process can use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BFLOAT16_SINCE = 8
"""First major compute capability with fast products in bfloat16: Ampere. Older GPUs emulate them."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Args:
        name: the vendor's name.
        memory_bytes: its memory in bytes, whoever uses it now.
        bfloat16: whether it multiplies bfloat16 fast.
    """

    name: str
    memory_bytes: float
    bfloat16: bool


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that this process can use; only their properties are read, which takes none of their memory."""
    if not torch.cuda.is_available():
        return []
    every = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Gpu(device.name, float(device.total_memory), device.major >= BFLOAT16_SINCE) for device in every]
