"""A backbone on the meta device that costs what a lane's does: with its dtypes, and dequantized at each use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base.spec import Quantization
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import skeleton
from orchestrator.backbone.weights import EightBitWeight, FrozenWeight, PlainWeight

if TYPE_CHECKING:
    from transformers import PretrainedConfig

BLOCK_SIZE = 64
"""Weights per scale of bitsandbytes' 4-bit formats."""
SCALE_BYTES, QUANTIZED_SCALE_BYTES = 4.0, 1 + 4 / 256
"""Bytes per scale: a float32; or a byte, with a float32 for 256 of them."""


@dataclass(frozen=True, eq=False)
class FourBitShape:
    """The shape of a 4-bit weight, which is dequantized anew at each use.

    Args:
        shape: rows and columns of the dequantized matrix.
        quantization: ``nf4`` or ``fp4``.
    """

    shape: tuple[int, int]
    quantization: Quantization

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return a new matrix on the meta device."""
        return torch.empty(self.shape, dtype=dtype, device="meta")

    def tensors(self) -> dict[str, Tensor]:
        """Return no tensors: the packed weight belongs to the backbone, which is not counted."""
        return {}

    def derived(self) -> dict[str, Tensor]:
        """Return no tensors, for the same reason."""
        return {}

    def read_tensors(self) -> list[Tensor]:
        """Return no tensors, for the same reason."""
        return []


def meta_backbone(
    config: PretrainedConfig,
    auto_class: str,
    task: str,
    *,
    name: str,
    labels: int,
    quantization: Quantization,
    dtype: torch.dtype,
) -> SharedBackbone:
    """Make a backbone on the meta device, with the dtypes in which lanes store and compute it.

    Args:
        config: the architecture.
        auto_class: name of transformers' auto class for the task.
        task: the task type.
        name: the backbone's name.
        labels: size of the classification head; 0 for a language model.
        quantization: quantization of the linear layers.
        dtype: dtype in which linear layers compute.

    Raises:
        ValueError: if transformers has no ``auto_class`` for this architecture.
    """
    bare = skeleton(config, auto_class, task, name, labels, quantization)
    dtype_of_stream = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    bare.model.to(dtype_of_stream)  # type: ignore[arg-type]
    make_weight = _weight_factory(quantization, dtype_of_stream)
    for module in bare.model.modules():
        if isinstance(module, FrozenLinear):
            module.frozen, module.compute_dtype = make_weight((module.out_features, module.in_features)), dtype
    return SharedBackbone(bare.model, bare.context, bare.fresh, bare.decoder)


def backbone_bytes(backbone: SharedBackbone, *, double_quantization: bool, keeps_scales: bool = False) -> float:
    """Return the bytes that a lane's copy of a backbone takes: packed layers with their scales, and all other tensors.

    Args:
        backbone: the backbone on the meta device.
        double_quantization: whether the scales of 4-bit weights are quantized too.
        keeps_scales: whether they are kept unpacked beside that.
    """
    layers = [module for module in backbone.model.modules() if isinstance(module, FrozenLinear)]
    scale_bytes = QUANTIZED_SCALE_BYTES + keeps_scales * SCALE_BYTES if double_quantization else SCALE_BYTES
    four_bit = sum(math.prod(layer.frozen.shape) for layer in layers if isinstance(layer.frozen, FourBitShape))
    others = {id(tensor): tensor.nbytes for tensor in backbone.shared_tensors()}
    return four_bit * (0.5 + scale_bytes / BLOCK_SIZE) + sum(others.values())


def _weight_factory(quantization: Quantization, dtype: torch.dtype) -> Callable[[tuple[int, int]], FrozenWeight]:
    """Return a function that makes a frozen weight of a shape on the meta device.

    Args:
        quantization: quantization of the weight.
        dtype: dtype of weights that are not quantized.
    """

    def make_weight(shape: tuple[int, int]) -> FrozenWeight:
        if quantization == "none":
            return PlainWeight(torch.empty(shape, dtype=dtype, device="meta"))
        if quantization == "int8":
            scale = torch.empty(shape[0], 1, device="meta")
            return EightBitWeight(torch.empty(shape, dtype=torch.int8, device="meta"), scale)
        return FourBitShape(shape, quantization)

    return make_weight
