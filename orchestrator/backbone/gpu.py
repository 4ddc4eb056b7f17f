"""What a GPU keeps unpacked of a backbone, and which kernels it uses: the memory of a GPU is spent on speed here."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.base.spec import Quantization
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.weights import FourBitWeight, FrozenWeight, PlainWeight
from orchestrator.config.gpu import GpuSettings

log = logging.getLogger(__name__)
FUSED_ROWS = 64
"""Most rows that bitsandbytes' 4-bit product is used for. By its own measurements on Hopper, unpacking the weight for a
dense product is faster above 16 to 64 rows."""
FREE_MEMORY_FRACTION = 0.5
"""Share of the free memory that unpacked weights may take; trials need the rest."""


@dataclass(frozen=True, eq=False)
class UnpackedWeight:
    """A packed weight and its dense copy, with the same bits as an unpacked one.

    Args:
        packed: packed weight.
        dense: weight in the dtype of products, shape ``(out, in)``.
    """

    packed: FrozenWeight
    dense: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        return self.packed.shape

    @property
    def quantization(self) -> Quantization:
        """Name of the packed form."""
        return self.packed.quantization

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the dense copy, or unpack the weight for another dtype."""
        return self.dense if dtype == self.dense.dtype else self.packed.dequantize(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return the packed weight's tensors."""
        return self.packed.tensors()

    def derived(self) -> dict[str, Tensor]:
        """Return the packed weight's derived tensors and the dense copy, so that the fingerprint covers it."""
        return {**self.packed.derived(), "dense": self.dense}

    def read_tensors(self) -> list[Tensor]:
        """Return the packed weight's tensors and the dense copy."""
        return [*self.packed.read_tensors(), self.dense]


def apply(settings: GpuSettings, model: nn.Module, free_bytes: float) -> None:
    """Change the frozen layers of a backbone to what the settings say; no number of a dense product changes.

    Args:
        settings: settings of the configuration.
        model: backbone on its device, before any view is made of it.
        free_bytes: free memory of the device.
    """
    layers = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    packed = [layer for layer in layers if not isinstance(layer.frozen, PlainWeight)]
    if settings.four_bit_generation:
        for layer in packed:
            layer.fused_rows = FUSED_ROWS
    # The backbone of another task has the same weights, and they are unpacked already if that was built before.
    packed = [layer for layer in packed if not isinstance(layer.frozen, UnpackedWeight)]
    if settings.keep_unpacked == "nothing":
        return
    needed = sum(layer.in_features * layer.out_features * layer.compute_dtype.itemsize for layer in packed)
    fits = needed <= FREE_MEMORY_FRACTION * free_bytes
    if settings.keep_unpacked == "weights" and not fits:
        text = "unpacked weights need %.1f GB, more than half of the %.1f GB that are free: only scales are kept"
        log.warning(text, needed / 1e9, free_bytes / 1e9)
    for layer in packed:
        if isinstance(layer.frozen, FourBitWeight):
            layer.frozen = layer.frozen.with_scales()
        if settings.keep_unpacked == "weights" and fits:
            layer.frozen = UnpackedWeight(layer.frozen, layer.frozen.dequantize(layer.compute_dtype))
