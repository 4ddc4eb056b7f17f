"""A backbone as a lane attaches it, without a number in it: what unpacking takes included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.base.spec import Quantization, TaskType
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import skeleton
from orchestrator.backbone.weights import EightBitWeight, FrozenWeight, PlainWeight

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, eq=False)
class FourBitShape:
    """A weight in four bits of which the shape is known, and that it is unpacked anew whenever it is needed."""

    shape: tuple[int, int]
    quantization: Quantization

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """A new matrix on the meta device."""
        return torch.empty(self.shape, dtype=dtype, device="meta")

    def tensors(self) -> dict[str, Tensor]:
        """None that anyone allocates."""
        return {}

    def derived(self) -> dict[str, Tensor]:
        """Nor any of these."""
        return {}


def meta_backbone(
    config: PretrainedConfig,
    auto_class: str,
    task: TaskType,
    *,
    name: str,
    labels: int,
    quantization: Quantization,
    dtype: torch.dtype,
) -> SharedBackbone:
    """The backbone on the meta device, in the precisions that lanes keep it and compute it in.

    Args:
        config: the architecture.
        auto_class: of the task's model.
        task: its type.
        name: of the backbone.
        labels: size of the classification head; 0 for a language model.
        quantization: of its linear layers.
        dtype: what those are computed in.

    Raises:
        ValueError: if transformers has no ``auto_class`` of this architecture.
    """
    made = skeleton(config, auto_class, task, name, labels, quantization)
    stream = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    made.model.to(stream)  # type: ignore[arg-type]
    weight = _weights(quantization, stream)
    for module in made.model.modules():
        if isinstance(module, FrozenLinear):
            module.frozen, module.compute_dtype = weight((module.out_features, module.in_features)), dtype
    return SharedBackbone(made.model, made.context, made.fresh, made.decoder)


def _weights(quantization: Quantization, stream: torch.dtype) -> Callable[[tuple[int, int]], FrozenWeight]:
    def weight(shape: tuple[int, int]) -> FrozenWeight:
        if quantization == "none":
            return PlainWeight(torch.empty(shape, dtype=stream, device="meta"))
        if quantization == "int8":
            scale = torch.empty(shape[0], 1, device="meta")
            return EightBitWeight(torch.empty(shape, dtype=torch.int8, device="meta"), scale)
        return FourBitShape(shape, quantization)

    return weight
