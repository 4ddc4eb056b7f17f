"""Measure the throughput of a device, and estimate the time of a step from it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from orchestrator.planning.estimates.step import StepCost

SMALL_ELEMENTS, REPEATS = 8, 5


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The sizes of what is timed on a device.

    Args:
        matrix_size: rows and columns of the matrices that are multiplied.
        stream_elements: float32 numbers that an elementwise operator reads.
        small_calls: calls on a few elements that are timed together.
    """

    matrix_size: int
    stream_elements: int
    small_calls: int


PROBES = {
    "cpu": Probes(matrix_size=768, stream_elements=2**21, small_calls=1),
    # A GPU multiplies 768 x 768 matrices faster than a kernel is launched, and 8 MiB stay in its cache: these products
    # take a millisecond and more, and the elements are ten times the largest cache. Calls queue up, so that one alone
    # would be timed with the wait for its end.
    "cuda": Probes(matrix_size=8192, stream_elements=2**27, small_calls=256),
}


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
        probes = PROBES[device.type]
        matrix = torch.ones(probes.matrix_size, probes.matrix_size, device=device, dtype=dtype)
        stream, small = torch.ones(probes.stream_elements, device=device), torch.ones(SMALL_ELEMENTS, device=device)

        def small_calls() -> None:
            for _ in range(probes.small_calls):
                small + small

        with torch.no_grad():
            product_seconds = _median_seconds(lambda: matrix @ matrix, device)
            stream_seconds = _median_seconds(lambda: F.silu(stream), device)
            calls_seconds = _median_seconds(small_calls, device)
        return cls(
            flops_per_second=2 * probes.matrix_size**3 / product_seconds,
            bytes_per_second=2 * stream.nbytes / stream_seconds,
            calls_per_second=probes.small_calls / calls_seconds,
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


def _median_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a few calls in seconds, after a first call that is not measured."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
