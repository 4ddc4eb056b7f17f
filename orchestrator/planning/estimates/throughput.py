"""How long a step takes: what it computes and moves, against what this machine computes and moves in a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from orchestrator.planning.estimates.step import StepCost

SIZE, ELEMENTS, SMALL = 768, 2**21, 8
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class DeviceThroughput:
    """What a lane gets done.

    Args:
        flops: floating-point operations of a matrix product per second.
        bytes: that pass through an elementwise operator per second, read and written.
        calls: operators per second where there is hardly anything to compute.
    """

    flops: float
    bytes: float
    calls: float

    @classmethod
    def measured(cls, device: torch.device, dtype: torch.dtype) -> DeviceThroughput:
        """Of this process and its threads; takes some tenths of a second.

        Args:
            device: where lanes compute.
            dtype: what frozen layers are computed in.
        """
        matrix = torch.ones(SIZE, SIZE, device=device, dtype=dtype)
        stream, small = torch.ones(ELEMENTS, device=device), torch.ones(SMALL, device=device)
        with torch.no_grad():
            product = _seconds(lambda: matrix @ matrix, device)
            moved = _seconds(lambda: F.silu(stream), device)
            call = _seconds(lambda: small + small, device)
        return cls(flops=2 * SIZE**3 / product, bytes=2 * stream.nbytes / moved, calls=1 / call)

    def seconds(self, cost: StepCost) -> float:
        """Of one step; products, what lies between them, and the calls themselves come one after the other."""
        return cost.flops / self.flops + cost.bytes_moved / self.bytes + cost.calls / self.calls


def _seconds(call: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Of a call, the median of a few; none of them is the first."""
    call()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
