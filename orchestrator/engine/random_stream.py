"""A trial's own random stream, so that what it draws depends on nobody else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

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
        return cls(torch.default_generator.get_state(), torch.cuda.get_rng_state() if _on_gpu() else None)

    def resume(self) -> None:
        """Put the generators where they stood."""
        torch.default_generator.set_state(self.cpu)
        if self.cuda is not None and _on_gpu():
            torch.cuda.set_rng_state(self.cuda)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"random:cpu": self.cpu} | ({"random:cuda": self.cuda} if self.cuda is not None else {})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> RandomStream:
        """From a checkpoint; a GPU's stream that it lacks begins where this one stands."""
        return cls(tensors["random:cpu"], tensors.get("random:cuda", cls.here().cuda))


@cache
def _on_gpu() -> bool:
    """Asked once, since streams change at every switch between the trials of a pack."""
    return torch.cuda.is_available()
