"""Measure the throughput of a device, and estimate the time of a step from it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from orchestrator.planning.estimates.step import StepCost

MATRIX_SIZE, STREAM_ELEMENTS, SMALL_ELEMENTS = 768, 2**21, 8
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class DeviceThroughput:
    """The throughput of the device that a lane uses.

    Args:
        flops_per_second: floating-point operations of a matrix product per second.
        bytes_per_second: bytes that an elementwise operator reads and writes per second.
        calls_per_second: calls of an operator on a few elements per second.
    """

    flops_per_second: float
    bytes_per_second: float
    calls_per_second: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> DeviceThroughput:
        """Measure the throughput of this process and its threads; takes some tenths of a second.

        Args:
            device: device of the lanes.
            dtype: dtype in which frozen layers compute.
        """
        matrix = torch.ones(MATRIX_SIZE, MATRIX_SIZE, device=device, dtype=dtype)
        stream, small = torch.ones(STREAM_ELEMENTS, device=device), torch.ones(SMALL_ELEMENTS, device=device)
        with torch.no_grad():
            product_seconds = _median_seconds(lambda: matrix @ matrix, device)
            stream_seconds = _median_seconds(lambda: F.silu(stream), device)
            call_seconds = _median_seconds(lambda: small + small, device)
        return cls(
            flops_per_second=2 * MATRIX_SIZE**3 / product_seconds,
            bytes_per_second=2 * stream.nbytes / stream_seconds,
            calls_per_second=1 / call_seconds,
        )

    def seconds(self, cost: StepCost) -> float:
        """Return the time of one step in seconds: products, memory traffic and calls one after the other.

        Args:
            cost: cost of the step.
        """
        return (
            cost.flops / self.flops_per_second
            + cost.bytes_moved / self.bytes_per_second
            + cost.calls / self.calls_per_second
        )


def _median_seconds(call: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Return the median time of a few calls in seconds, after a first call that is not measured."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
