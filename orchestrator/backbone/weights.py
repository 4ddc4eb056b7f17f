"""Storage forms of a frozen weight: packed to 4 or 8 bits, or plain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from methods.base.spec import Quantization
from orchestrator.backbone.bitsandbytes import functional as bnb

SCALES = "scales"
"""Part of a stored weight that is derived from the others."""
CHUNK = 2**20
"""Weights that are quantized at once. bitsandbytes' kernels for processors make several float32 copies of what they are
given, so that a whole weight at once would take 16 bytes per weight, and be slower, since no cache holds that."""


class FrozenWeight(Protocol):
    """A read-only weight of shape ``(out, in)``."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``."""
        ...

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the weight as a matrix: a new tensor, or the stored one if it is plain already."""
        ...

    @property
    def quantization(self) -> Quantization:
        """Name of the storage form, as in the configuration."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store, by part name."""
        ...

    def derived(self) -> dict[str, Tensor]:
        """Return tensors that are stored beside them to save time, by part name."""
        ...

    def read_tensors(self) -> list[Tensor]:
        """Return the tensors that a pass reads, on the weight's device and without copying."""
        ...


@dataclass(frozen=True, eq=False)
class FourBitWeight:
    """NF4 or FP4, an absmax per block of 64, itself quantized on request (Dettmers et al., 2023, arXiv:2305.14314).

    Args:
        packed: quantization levels, two per byte.
        state: bitsandbytes' quantization state.
        scales: absmax of every block as float32, if the state's own are quantized. Used on processors, where
            dequantizing the absmax takes half as long as dequantizing the weight.
    """

    packed: Tensor
    state: bnb.QuantState
    scales: Tensor | None = None

    @classmethod
    def quantize(cls, weight: Tensor, quant_type: str, double: bool) -> FourBitWeight:
        """Quantize a weight of shape ``(out, in)``, as ``quantize_4bit`` of the whole does, to the same bits."""
        chunks = [bnb.quantize_4bit(part, quant_type=quant_type) for part in weight.reshape(-1).split(CHUNK)]
        packed = torch.cat([part for part, _ in chunks])
        absmax = torch.cat([state.absmax for _, state in chunks])
        code, blocksize = chunks[0][1].code, chunks[0][1].blocksize
        if not double:
            return cls(packed, bnb.QuantState(absmax, weight.shape, code, blocksize, quant_type, weight.dtype))
        with _one_thread():
            offset = absmax.mean()
        nested, state2 = bnb.quantize_blockwise(absmax - offset, blocksize=256)
        state = bnb.QuantState(nested, weight.shape, code, blocksize, quant_type, weight.dtype, offset, state2)
        return cls(packed, state, bnb.dequantize_blockwise(nested, state2) + offset)

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> FourBitWeight:
        """Rebuild the weight from :meth:`tensors` and :meth:`derived`, without copying."""
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
        """Dequantize all blocks."""
        weight: Tensor = bnb.dequantize_4bit(self.packed, self._dequantization_state())
        return weight.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return the packed bytes and bitsandbytes' quantization state."""
        return {"packed": self.packed, **self.state.as_dict(packed=True)}

    def derived(self) -> dict[str, Tensor]:
        """Return the float32 scales, if there are any."""
        return {} if self.scales is None else {SCALES: self.scales}

    def read_tensors(self) -> list[Tensor]:
        """Return the packed bytes, the absmax with what it is quantized by, and the scales."""
        state, nested = self.state, self.state.state2
        parts = [self.packed, state.absmax, state.code, state.offset, self.scales]
        parts += [nested.absmax, nested.code] if nested else []
        return [part for part in parts if part is not None]

    def compute_in(self, dtype: torch.dtype) -> None:
        """Let bitsandbytes dequantize straight to ``dtype``, which saves a cast per pass."""
        self.state.dtype = dtype

    def with_scales(self) -> FourBitWeight:
        """Return the weight with its scales dequantized, as every :meth:`dequantize` does without them."""
        if self.scales is not None or not self.state.nested:
            return self
        state = self.state
        return replace(self, scales=bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset)

    def matmul(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x W^T + b`` without dequantizing ``W``, by a kernel for a few rows; no gradients.

        Args:
            x: tensor of shape ``(..., in)``, in the dtype of the product.
            bias: bias of shape ``(out,)`` in that dtype.
        """
        state, nested = self.state, {}
        scales = state.absmax if self.scales is None else self.scales
        if self.scales is None and state.nested:
            scales = state.state2.absmax
            nested = {"absmax_8bit": state.absmax, "absmax_code": state.state2.code, "absmax_offset": state.offset}
        product: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
            x, self.packed.view(-1, 1), state.shape, scales, state.blocksize, state.quant_type, bias=bias, **nested
        )
        return product

    @property
    def blocksize(self) -> int:
        """Number of weights that share a scale."""
        return int(self.state.blocksize)

    def _dequantization_state(self) -> bnb.QuantState:
        state = self.state
        if self.scales is None:
            return state
        return bnb.QuantState(self.scales, state.shape, state.code, state.blocksize, state.quant_type, state.dtype)


@dataclass(frozen=True, eq=False)
class EightBitWeight:
    """Signed bytes with one scale per output row (the weight half of LLM.int8(), arXiv:2208.07339)."""

    packed: Tensor
    scale: Tensor

    @classmethod
    def quantize(cls, weight: Tensor) -> EightBitWeight:
        """Round a weight of shape ``(out, in)`` to 255 levels per row."""
        chunks = [cls._quantize_rows(rows.float()) for rows in weight.split(max(1, CHUNK // weight.shape[1]))]
        return cls(torch.cat([packed for packed, _ in chunks]), torch.cat([scale for _, scale in chunks]))

    @staticmethod
    def _quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        return (rows / scale).round().to(torch.int8), scale

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> EightBitWeight:
        """Rebuild the weight from :meth:`tensors`, without copying."""
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
        """Multiply levels by scales."""
        return self.packed.to(dtype) * self.scale.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return levels and scales."""
        return {"packed": self.packed, "scale": self.scale}

    def derived(self) -> dict[str, Tensor]:
        """Return no tensors."""
        return {}

    def read_tensors(self) -> list[Tensor]:
        """Return the stored tensors."""
        return list(self.tensors().values())


@dataclass(frozen=True, eq=False)
class PlainWeight:
    """The weight as in the checkpoint."""

    weight: Tensor

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> PlainWeight:
        """Rebuild the weight from :meth:`tensors`, without copying."""
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
        """Cast the weight; without copying if it has that dtype already."""
        return self.weight.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weight."""
        return {"plain": self.weight}

    def derived(self) -> dict[str, Tensor]:
        """Return no tensors."""
        return {}

    def read_tensors(self) -> list[Tensor]:
        """Return the stored tensors."""
        return list(self.tensors().values())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Add up in one thread: with several, the order of a sum, and so its last bits, depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def quantize(weight: Tensor, quantization: Quantization, double: bool) -> FrozenWeight:
    """Convert a weight of shape ``(out, in)`` into a storage form.

    Args:
        weight: weight to convert.
        quantization: name of the form.
        double: whether to quantize the scales of 4-bit weights too.
    """
    if quantization == "none":
        return PlainWeight(weight.contiguous())
    if quantization == "int8":
        return EightBitWeight.quantize(weight)
    return FourBitWeight.quantize(weight, quantization, double)


def restore(parts: dict[str, Tensor], dtype: torch.dtype) -> FrozenWeight:
    """Rebuild a stored weight from its parts, without copying.

    Args:
        parts: tensors by part name.
        dtype: dtype that the weight will be dequantized to.
    """
    if "plain" in parts:
        return PlainWeight.restore(parts)
    if "scale" in parts:
        return EightBitWeight.restore(parts)
    four_bit = FourBitWeight.restore(parts)
    four_bit.compute_in(dtype)
    return four_bit
