"""A trial's own random stream, so that its random numbers do not depend on its neighbours in a pack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RandomStream:
    """States of torch's random generators.

    Args:
        cpu: state of the processor's generator.
        cuda: state of the GPU's generator; ``None`` on a processor.
        device: device of the lane, whose generator ``cuda`` belongs to.
    """

    cpu: Tensor
    cuda: Tensor | None
    device: torch.device = CPU

    @classmethod
    def capture(cls, device: torch.device) -> RandomStream:
        """Return the present states of the generators of the processor and of a device."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.default_generator.get_state(), cuda, device)

    @classmethod
    def from_seed(cls, seed: int, device: torch.device) -> RandomStream:
        """Return the states of generators that were seeded with a number."""
        cuda = torch.Generator(device).manual_seed(seed).get_state() if device.type == "cuda" else None
        return cls(torch.Generator().manual_seed(seed).get_state(), cuda, device)

    def restore(self) -> None:
        """Set the generators to these states."""
        torch.default_generator.set_state(self.cpu)
        if self.cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, self.device)

    def equals(self, other: RandomStream) -> bool:
        """Return whether both have the same states."""
        pairs = [(self.cpu, other.cpu)]
        if self.cuda is not None and other.cuda is not None:
            pairs.append((self.cuda, other.cuda))
        return all(torch.equal(first, second) for first, second in pairs)

    def tensors(self) -> dict[str, Tensor]:
        """Return the states by the names that a checkpoint stores them under."""
        return {"random:cpu": self.cpu} | ({"random:cuda": self.cuda} if self.cuda is not None else {})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device) -> RandomStream:
        """Read the states from a checkpoint; one from a lane without a GPU gets this GPU's present state."""
        return cls(tensors["random:cpu"], tensors.get("random:cuda", cls.capture(device).cuda), device)


@contextmanager
def restored_generators(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restore the generators of the processor and of a device at the end of the context.

    ``torch.random.fork_rng`` and ``torch.manual_seed`` do so for every GPU that the process sees: those of other lanes
    of the node too, and the machine's where the lane has none.

    Args:
        device: device of the lane.
        seed: seed of the generators inside the context; without one, they continue.
    """
    before = RandomStream.capture(device)
    try:
        if seed is not None:
            RandomStream.from_seed(seed, device).restore()
        yield
    finally:
        before.restore()
