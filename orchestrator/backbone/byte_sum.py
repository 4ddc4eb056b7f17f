"""The sum of a tensor's bytes, which any change of one of them changes."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 8


def byte_sum(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's bytes, 8 at a time, modulo 2**64; computed on its device, as memory is read.

    Args:
        tensor: tensor of any dtype and shape.

    Returns:
        An int64 tensor without dimensions.
    """
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    before = -raw.storage_offset() % WORD  # bytes before the first that torch can view as int64
    if len(raw) < before + WORD:
        return raw.sum()
    after = (len(raw) - before) % WORD
    total = raw[before : len(raw) - after].view(torch.int64).sum()
    if before:
        total = total + raw[:before].sum()
    if after:
        total = total + 2**32 * raw[len(raw) - after :].sum()
    return total
