"""How a frozen weight is kept: packed to 4 or 8 bits, or plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from methods.base.spec import Quantization
from orchestrator.backbone.bitsandbytes import functional as bnb

SCALES = "scales"
"""The part of a stored weight that is derived from the others."""


class FrozenWeight(Protocol):
    """A weight of shape ``(out, in)`` that is read and never written."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        ...

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight as a matrix; a new tensor, or the stored one where it is plain already."""
        ...

    @property
    def quantization(self) -> Quantization:
        """How it is stored, in the configuration's words."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything to store, by part name."""
        ...

    def derived(self) -> dict[str, Tensor]:
        """What is stored beside them to save time, by part name."""
        ...


@dataclass(frozen=True, eq=False)
class FourBitWeight:
    """NF4 or FP4, an absmax per block of 64, itself quantized on request (Dettmers et al., 2023, arXiv:2305.14314).

    Args:
        packed: two levels a byte.
        state: bitsandbytes' description of them.
        scales: the absmax of every block as float32 where the state's are quantized, for processors, which unpack
            those as slowly as half as many weights.
    """

    packed: Tensor
    state: bnb.QuantState
    scales: Tensor | None = None

    @classmethod
    def quantize(cls, weight: Tensor, quant_type: str, double: bool) -> FourBitWeight:
        """Pack ``weight`` of shape ``(out, in)``."""
        packed, state = bnb.quantize_4bit(weight.contiguous(), quant_type=quant_type, compress_statistics=double)
        if not state.nested:
            return cls(packed, state)
        return cls(packed, state, bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset)

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> FourBitWeight:
        """The inverse of :meth:`tensors` and :meth:`derived`, without copying."""
        rest = dict(parts)
        packed, scales = rest.pop("packed"), rest.pop(SCALES, None)
        state = bnb.QuantState.from_dict(rest, device=packed.device)
        return cls(packed, state, None if packed.is_cuda else scales)

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        rows, columns = self.state.shape
        return rows, columns

    @property
    def quantization(self) -> Quantization:
        """``nf4`` or ``fp4``."""
        return "fp4" if self.state.quant_type == "fp4" else "nf4"

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Unpack all blocks."""
        weight: Tensor = bnb.dequantize_4bit(self.packed, self._unpacking())
        return weight.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """The packed bytes and bitsandbytes' own description of them."""
        return {"packed": self.packed, **self.state.as_dict(packed=True)}

    def derived(self) -> dict[str, Tensor]:
        """The scales that need no unpacking."""
        return {} if self.scales is None else {SCALES: self.scales}

    def compute_in(self, dtype: torch.dtype) -> None:
        """Let bitsandbytes unpack straight to ``dtype``, which saves a cast per pass."""
        self.state.dtype = dtype

    def _unpacking(self) -> bnb.QuantState:
        own = self.state
        if self.scales is None:
            return own
        return bnb.QuantState(self.scales, own.shape, own.code, own.blocksize, own.quant_type, own.dtype)


@dataclass(frozen=True, eq=False)
class EightBitWeight:
    """Signed bytes with one scale per output row (the weight half of LLM.int8(), arXiv:2208.07339)."""

    packed: Tensor
    scale: Tensor

    @classmethod
    def quantize(cls, weight: Tensor) -> EightBitWeight:
        """Round ``weight`` of shape ``(out, in)`` to 255 levels a row."""
        scale = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        return cls((weight.float() / scale).round().to(torch.int8), scale)

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> EightBitWeight:
        """The inverse of :meth:`tensors`, without copying."""
        return cls(parts["packed"], parts["scale"])

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        rows, columns = self.packed.shape
        return rows, columns

    @property
    def quantization(self) -> Quantization:
        """``int8``."""
        return "int8"

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Levels times scales."""
        return self.packed.to(dtype) * self.scale.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Levels and scales."""
        return {"packed": self.packed, "scale": self.scale}

    def derived(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@dataclass(frozen=True, eq=False)
class PlainWeight:
    """The checkpoint's own numbers."""

    weight: Tensor

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> PlainWeight:
        """The inverse of :meth:`tensors`, without copying."""
        return cls(parts["plain"])

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def quantization(self) -> Quantization:
        """``none``."""
        return "none"

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight itself where ``dtype`` is its own."""
        return self.weight.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """The one tensor."""
        return {"plain": self.weight}

    def derived(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def quantize(weight: Tensor, quantization: Quantization, double: bool) -> FrozenWeight:
    """Bring ``weight`` of shape ``(out, in)`` into its stored form."""
    if quantization == "none":
        return PlainWeight(weight.contiguous())
    if quantization == "int8":
        return EightBitWeight.quantize(weight)
    return FourBitWeight.quantize(weight, quantization, double)


def restore(parts: dict[str, Tensor], dtype: torch.dtype) -> FrozenWeight:
    """Rebuild a stored weight from its parts without copying; ``dtype`` is what it will be asked for."""
    if "plain" in parts:
        return PlainWeight.restore(parts)
    if "scale" in parts:
        return EightBitWeight.restore(parts)
    four_bit = FourBitWeight.restore(parts)
    four_bit.compute_in(dtype)
    return four_bit
