"""The memory of the processes that a sweep keeps on the driver's machine, beside its lanes."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from orchestrator.config import Lanes

PROCESS_BYTES = 118e6
"""Resident memory of a process that stands in for a trial in Ray Tune; the helpers of lanes are about as large."""
HELPERS_PER_GROUP = 2
"""Processes of Ray Train for a group of lanes: its controller, and the one in which workers wait for each other."""
MEMORY_FRACTION = 0.5
"""Fraction of the driver's machine that these processes may take; driver, Ray and object store need the rest."""


@dataclass(frozen=True)
class HeadSize:
    """What a sweep keeps on the driver's machine.

    Args:
        processes: number of processes.
        machine_bytes: memory of the machine.
    """

    processes: int
    machine_bytes: float

    @property
    def process_bytes(self) -> float:
        """Memory of all processes, in bytes."""
        return self.processes * PROCESS_BYTES

    @property
    def is_too_large(self) -> bool:
        """Whether the processes take more than their fraction of the machine."""
        return self.process_bytes > MEMORY_FRACTION * self.machine_bytes


def head_size(lanes: Lanes, pack: int) -> HeadSize | None:
    """Return what a sweep keeps on this machine, every lane a group of its own; ``None`` if ``lanes.max`` is open.

    Args:
        lanes: ``lanes`` of the configuration.
        pack: trials that a lane trains at once.
    """
    if lanes.max == "auto":
        return None
    processes = lanes.max * pack + 1 + HELPERS_PER_GROUP * lanes.max
    return HeadSize(processes, float(psutil.virtual_memory().total))
