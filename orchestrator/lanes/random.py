"""A trial's own random stream, so that what it draws depends on nobody else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomStream:
    """Where torch's generators stand: the processor's, and the GPU's where there is one."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def here(cls) -> RandomStream:
        """As they stand now."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    def resume(self) -> None:
        """Put the generators where they stood."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"random:cpu": self.cpu} | ({"random:cuda": self.cuda} if self.cuda is not None else {})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> RandomStream:
        """From a checkpoint; a GPU's stream that it lacks begins where this one stands."""
        return cls(tensors["random:cpu"], tensors.get("random:cuda", cls.here().cuda))
