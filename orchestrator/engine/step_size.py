"""How much of a batch a training step computes at once, and how that shrinks where memory is short."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

FULL_GPU_TOKENS = 1024
"""Tokens of a micro-batch that keep a GPU busy with products. The kernels of a step are launched, and the frozen
weights dequantized, once per micro-batch: about 0.2 s for 8 billion weights, in which a large GPU multiplies 1,000 to
3,000 tokens."""


@dataclass(frozen=True)
class StepSize:
    """The parts that a step computes one after the other.

    Args:
        micro_batches: parts that a batch is split into, a power of 2.
        checkpointed: whether blocks keep their inputs alone and are computed again in the backward pass.
    """

    micro_batches: int = 1
    checkpointed: bool = False

    def smallest_of(self, other: StepSize) -> StepSize:
        """Return a size that needs no more memory than either."""
        return StepSize(max(self.micro_batches, other.micro_batches), self.checkpointed or other.checkpointed)

    def smaller(self, rows: int, tokens: int, device: torch.device) -> StepSize | None:
        """Return the size to try if this one does not fit; ``None`` after single rows with checkpointed blocks.

        Halves cost nothing as long as they fill the device; checkpointed blocks cost a second forward pass, about two
        fifths more arithmetic. Halves that no longer fill a GPU cost most: twice the time for the same rows. So that is
        the order. A processor is busy with any row.

        Args:
            rows: rows of the batch.
            tokens: tokens of the batch, padding included.
            device: device that computes.
        """
        full_tokens = FULL_GPU_TOKENS if device.type == "cuda" else 1
        can_halve = self.micro_batches < rows
        halves_are_full = tokens >= 2 * self.micro_batches * full_tokens
        if can_halve and (halves_are_full or self.checkpointed):
            return replace(self, micro_batches=2 * self.micro_batches)
        return None if self.checkpointed else replace(self, checkpointed=True)
