"""A trial's own random stream, so that its random numbers do not depend on its neighbours in a pack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomStream:
    """States of torch's random generators.

    Args:
        cpu: state of the processor's generator.
        cuda: state of the GPU's generator; ``None`` without a GPU.
    """

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def capture(cls) -> RandomStream:
        """Return the present states of the generators."""
        return cls(torch.default_generator.get_state(), torch.cuda.get_rng_state() if _has_gpu() else None)

    def restore(self) -> None:
        """Set the generators to these states."""
        torch.default_generator.set_state(self.cpu)
        if self.cuda is not None and _has_gpu():
            torch.cuda.set_rng_state(self.cuda)

    def tensors(self) -> dict[str, Tensor]:
        """Return the states by the names that a checkpoint stores them under."""
        return {"random:cpu": self.cpu} | ({"random:cuda": self.cuda} if self.cuda is not None else {})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> RandomStream:
        """Read the states from a checkpoint; one from a machine without a GPU gets this GPU's present state."""
        return cls(tensors["random:cpu"], tensors.get("random:cuda", cls.capture().cuda))


@cache
def _has_gpu() -> bool:
    """Ask torch once: streams change at every switch between the trials of a pack."""
    return torch.cuda.is_available()
